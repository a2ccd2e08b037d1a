locals {
  # Every name begins with it, so that two environments fit into one account.
  name = "math-service-${var.environment}"
  # The image is the same in every environment, and so is its repository.
  repository = "my-math-service"

  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  arn       = "arn:${local.partition}"
  # The middle of most ARNs.
  here = "${var.region}:${local.account}"

  zones = slice(sort(data.aws_availability_zones.available.names), 0, 3)
  # Where a NAT gateway and the endpoints' interfaces are: one zone's failure is survived only with one in each.
  served_zones = var.high_availability ? local.zones : slice(local.zones, 0, 1)

  # Pods have addresses of the private subnets, so those are the large ones: a quarter of the network each. The public
  # ones share the first quarter.
  public_subnets  = { for i, zone in local.zones : zone => cidrsubnet(var.vpc_cidr, 4, i) }
  private_subnets = { for i, zone in local.zones : zone => cidrsubnet(var.vpc_cidr, 2, i + 1) }

  node_group = "standard-workers"
  # How cluster-autoscaler finds the node group, and what its rights end at.
  autoscaler_tags = {
    "k8s.io/cluster-autoscaler/enabled"       = "true"
    "k8s.io/cluster-autoscaler/${local.name}" = "owned"
  }

  # The service's ServiceAccount in k8s/base, and where it is applied.
  service_namespace = "default"
  service_account   = "math-service"

  database = "math_service"
}
