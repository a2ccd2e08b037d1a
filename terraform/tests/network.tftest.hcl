# Nodes are private, the way out is NAT, and AWS's services are reached without it.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment = "dev"
}

run "the_network_of_an_environment" {
  # Three zones with a public and a private subnet each.
  assert {
    condition     = keys(aws_subnet.public) == ["eu-west-2a", "eu-west-2b", "eu-west-2c"] && keys(aws_subnet.private) == keys(aws_subnet.public)
    error_message = "The first three zones of the region, in the order of their names."
  }

  assert {
    condition     = [for s in aws_subnet.private : s.cidr_block] == ["10.0.64.0/18", "10.0.128.0/18", "10.0.192.0/18"]
    error_message = "Pods need most of the addresses."
  }

  assert {
    condition     = [for s in aws_subnet.public : s.cidr_block] == ["10.0.0.0/20", "10.0.16.0/20", "10.0.32.0/20"]
    error_message = "The public subnets share the first quarter."
  }

  assert {
    condition     = alltrue([for s in concat(values(aws_subnet.public), values(aws_subnet.private)) : !s.map_public_ip_on_launch])
    error_message = "Nothing gets a public address by being started."
  }

  # Balancers find their subnets.
  assert {
    condition     = alltrue([for s in aws_subnet.public : s.tags["kubernetes.io/role/elb"] == "1"]) && alltrue([for s in aws_subnet.private : s.tags["kubernetes.io/role/internal-elb"] == "1"])
    error_message = "Kubernetes looks for subnets by these tags."
  }

  assert {
    condition     = alltrue([for s in concat(values(aws_subnet.public), values(aws_subnet.private)) : s.tags["kubernetes.io/cluster/math-service-dev"] == "shared"])
    error_message = "A Classic Load Balancer goes to subnets that are tagged as the cluster's."
  }

  # Private subnets leave through nat and only public ones reach the internet gateway.
  assert {
    condition     = alltrue([for zone, route in aws_route.through_nat : route.destination_cidr_block == "0.0.0.0/0" && route.gateway_id == null && route.route_table_id == aws_route_table.private[zone].id])
    error_message = "A private subnet's way out is NAT."
  }

  assert {
    condition     = alltrue([for zone, association in aws_route_table_association.private : association.subnet_id == aws_subnet.private[zone].id && association.route_table_id == aws_route_table.private[zone].id])
    error_message = "Each private subnet has the private table of its zone."
  }

  assert {
    condition     = alltrue([for zone, association in aws_route_table_association.public : association.subnet_id == aws_subnet.public[zone].id && association.route_table_id == aws_route_table.public.id])
    error_message = "Each public subnet has the public table."
  }

  assert {
    condition     = alltrue([for zone, gateway in aws_nat_gateway.main : gateway.subnet_id == aws_subnet.public[zone].id])
    error_message = "NAT gateways are where the internet is."
  }

  # Images and sequences do not go through nat.
  assert {
    condition     = toset([for e in aws_vpc_endpoint.interface : e.service_name]) == toset(["com.amazonaws.eu-west-2.ecr.api", "com.amazonaws.eu-west-2.ecr.dkr", "com.amazonaws.eu-west-2.sts"])
    error_message = "ECR and STS."
  }

  assert {
    condition     = toset([for e in aws_vpc_endpoint.gateway : e.service_name]) == toset(["com.amazonaws.eu-west-2.s3", "com.amazonaws.eu-west-2.dynamodb"])
    error_message = "S3 and DynamoDB."
  }

  assert {
    condition     = alltrue([for e in aws_vpc_endpoint.gateway : toset(e.route_table_ids) == toset([for t in aws_route_table.private : t.id])])
    error_message = "A gateway endpoint works where a route leads to it."
  }

  assert {
    condition     = alltrue([for e in aws_vpc_endpoint.interface : e.private_dns_enabled]) && aws_vpc.main.enable_dns_hostnames && aws_vpc.main.enable_dns_support
    error_message = "Without private names everything would go on through NAT."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == "10.0.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints.from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    error_message = "Endpoints answer the network, on 443."
  }

  # What names no security group gets a closed one.
  assert {
    condition     = aws_default_security_group.closed.vpc_id == aws_vpc.main.id && length(aws_default_security_group.closed.ingress) == 0 && length(aws_default_security_group.closed.egress) == 0
    error_message = "The default group has no rule."
  }
}

run "without_high_availability_one_gateway_serves_all_zones" {
  variables {
    high_availability = false
  }

  assert {
    condition     = keys(aws_nat_gateway.main) == ["eu-west-2a"]
    error_message = "One gateway, to save."
  }

  assert {
    condition     = alltrue([for route in aws_route.through_nat : route.nat_gateway_id == aws_nat_gateway.main["eu-west-2a"].id])
    error_message = "Every private subnet leaves through it."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : toset(endpoint.subnet_ids) == toset([aws_subnet.private["eu-west-2a"].id])])
    error_message = "Endpoints are paid for by the zone."
  }
}

run "with_high_availability_each_zone_has_its_own" {
  variables {
    high_availability = true
  }

  assert {
    condition     = keys(aws_nat_gateway.main) == keys(aws_subnet.private)
    error_message = "A gateway in every zone."
  }

  assert {
    condition     = alltrue([for zone, route in aws_route.through_nat : route.nat_gateway_id == aws_nat_gateway.main[zone].id])
    error_message = "Traffic stays in its zone."
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.interface : length(endpoint.subnet_ids) == 3])
    error_message = "Endpoints in every zone."
  }
}

run "flow_logs_are_kept_encrypted_and_not_for_ever" {
  variables {
    log_retention_days = 30
  }

  assert {
    condition     = aws_flow_log.main.vpc_id == aws_vpc.main.id && aws_flow_log.main.traffic_type == "ALL" && aws_flow_log.main.log_destination == aws_cloudwatch_log_group.flow.arn
    error_message = "All traffic of the network is logged."
  }

  assert {
    condition     = aws_cloudwatch_log_group.flow.retention_in_days == 30 && aws_cloudwatch_log_group.flow.kms_key_id == aws_kms_key.main.arn
    error_message = "Logs are encrypted with the environment's key and end."
  }
}

run "networks_that_cannot_work_are_refused" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/21"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_network_with_public_addresses_is_refused" {
  command = plan

  variables {
    vpc_cidr = "172.32.0.0/16"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_network_that_begins_in_its_middle_is_refused" {
  command = plan

  variables {
    vpc_cidr = "10.0.1.0/16"
  }

  expect_failures = [var.vpc_cidr]
}

run "what_is_no_network_is_refused" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0"
  }

  expect_failures = [var.vpc_cidr]
}
