# The same cluster as cluster-config.yaml makes, and on the same terms: a test compares the two.

resource "aws_eks_cluster" "main" {
  name     = local.name
  version  = var.kubernetes_version
  role_arn = aws_iam_role.cluster.arn

  # Ours are below, with their settings.
  bootstrap_self_managed_addons = false
  deletion_protection           = var.deletion_protection
  enabled_cluster_log_types     = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  vpc_config {
    subnet_ids              = [for subnet in aws_subnet.private : subnet.id]
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_public_cidrs) > 0
    # AWS takes none for all.
    public_access_cidrs = length(var.api_public_cidrs) > 0 ? var.api_public_cidrs : null
  }

  access_config {
    # Access entries only: the aws-auth ConfigMap, which one typo could lock everybody out with, is not read.
    authentication_mode = "API"
    # Whoever creates it gets in, so that somebody does.
    bootstrap_cluster_creator_admin_permissions = true
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.main.arn
    }
  }

  upgrade_policy {
    # When its version leaves standard support AWS upgrades it; the alternative costs six times as much.
    support_type = "STANDARD"
  }

  # Until the end it needs its rights, and the log group has to be there before it would make one itself.
  depends_on = [aws_iam_role_policy_attachment.cluster, aws_cloudwatch_log_group.cluster]
}

resource "aws_cloudwatch_log_group" "cluster" {
  # checkov:skip=CKV_AWS_338:How long is config/'s business: a year in production, two weeks where nobody will ask later.
  name              = "/aws/eks/${local.name}/cluster"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.main.arn
}

resource "aws_eks_access_entry" "admin" {
  for_each = toset(var.cluster_admins)

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = each.value
}

resource "aws_eks_access_policy_association" "admin" {
  for_each = aws_eks_access_entry.admin

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = each.value.principal_arn
  policy_arn    = "${local.arn}:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

resource "aws_launch_template" "nodes" {
  name        = "${local.name}-nodes"
  description = "Nodes of the cluster ${local.name}"

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_size           = var.node_volume_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  metadata_options {
    http_endpoint = "enabled"
    # A request that somebody was tricked into sending carries no token.
    http_tokens = "required"
    # The answer does not reach into pods: their rights are their own, through pod identity.
    http_put_response_hop_limit = 1
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])

    content {
      resource_type = tag_specifications.value
      tags          = { Name = "${local.name}-node" }
    }
  }
}

resource "aws_eks_node_group" "standard" {
  cluster_name    = aws_eks_cluster.main.name
  node_group_name = local.node_group
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = [for subnet in aws_subnet.private : subnet.id]
  version         = aws_eks_cluster.main.version
  ami_type        = "AL2023_x86_64_STANDARD"
  instance_types  = [var.node_instance_type]
  labels          = { role = "worker" }

  launch_template {
    id      = aws_launch_template.nodes.id
    version = aws_launch_template.nodes.latest_version
  }

  scaling_config {
    min_size     = var.nodes.min
    desired_size = var.nodes.desired
    max_size     = var.nodes.max
  }

  update_config {
    max_unavailable = 1
  }

  tags = merge(local.autoscaler_tags, { nodegroup-type = "standard" })

  lifecycle {
    # cluster-autoscaler's business, once it runs.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # A node without them never becomes ready; and at the end, pods leave only while they are there.
  depends_on = [
    aws_iam_role_policy_attachment.node,
    aws_eks_addon.before_nodes,
  ]
}

# The group of nodes has tags, the Auto Scaling group behind it needs its own: those are what the autoscaler looks at.
resource "aws_autoscaling_group_tag" "autoscaler" {
  for_each = merge(local.autoscaler_tags, {
    # So that it knows what a node will be like when there is none.
    "k8s.io/cluster-autoscaler/node-template/label/role" = "worker"
  })

  autoscaling_group_name = aws_eks_node_group.standard.resources[0].autoscaling_groups[0].name

  tag {
    key                 = each.key
    value               = each.value
    propagate_at_launch = false
  }
}

locals {
  addons = {
    # Hands roles to pods; without it the associations in iam.tf do nothing.
    eks-pod-identity-agent = { before_nodes = true, configuration = null }
    # Without its network policies a NetworkPolicy is accepted and ignored.
    vpc-cni    = { before_nodes = true, configuration = jsonencode({ enableNetworkPolicy = "true" }) }
    kube-proxy = { before_nodes = true, configuration = null }
    coredns    = { before_nodes = false, configuration = null }
    # Feeds the HorizontalPodAutoscaler.
    metrics-server = { before_nodes = false, configuration = null }
  }
}

resource "aws_eks_addon" "before_nodes" {
  for_each = { for name, addon in local.addons : name => addon if addon.before_nodes }

  cluster_name                = aws_eks_cluster.main.name
  addon_name                  = each.key
  configuration_values        = each.value.configuration
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  # The network plug-in's rights go to its pods, not to every pod on the node.
  dynamic "pod_identity_association" {
    for_each = each.key == "vpc-cni" ? [aws_iam_role.pod["vpc_cni"].arn] : []

    content {
      service_account = local.pods.vpc_cni.service_account
      role_arn        = pod_identity_association.value
    }
  }

  depends_on = [aws_iam_role_policy_attachment.vpc_cni]
}

# They wait for nodes to run on.
resource "aws_eks_addon" "on_nodes" {
  for_each = { for name, addon in local.addons : name => addon if !addon.before_nodes }

  cluster_name                = aws_eks_cluster.main.name
  addon_name                  = each.key
  configuration_values        = each.value.configuration
  resolve_conflicts_on_create = "OVERWRITE"
  resolve_conflicts_on_update = "OVERWRITE"

  depends_on = [aws_eks_node_group.standard]
}
