# The cluster: closed unless asked, encrypted, logged, with the sizes and add-ons of cluster-config.yaml.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment = "dev"
}

run "the_cluster_unless_asked_otherwise" {
  # Nobody outside reaches the api unless asked.
  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_private_access && !aws_eks_cluster.main.vpc_config[0].endpoint_public_access
    error_message = "The API is in the network only."
  }

  assert {
    condition     = !contains(coalesce(aws_eks_cluster.main.vpc_config[0].public_access_cidrs, []), "0.0.0.0/0")
    error_message = "Nobody asked for the whole internet."
  }

  # Control plane and nodes are in private subnets.
  assert {
    condition     = toset(aws_eks_cluster.main.vpc_config[0].subnet_ids) == toset([for s in aws_subnet.private : s.id])
    error_message = "The control plane's interfaces are private."
  }

  assert {
    condition     = toset(aws_eks_node_group.standard.subnet_ids) == toset([for s in aws_subnet.private : s.id])
    error_message = "Nodes are private."
  }

  assert {
    condition     = length(aws_launch_template.nodes.network_interfaces) == 0 && length(aws_eks_node_group.standard.remote_access) == 0 && aws_launch_template.nodes.key_name == null
    error_message = "No node has a public address, and nobody signs in to one."
  }

  # Secrets disks and logs are encrypted.
  assert {
    condition     = toset(aws_eks_cluster.main.encryption_config[0].resources) == toset(["secrets"]) && aws_eks_cluster.main.encryption_config[0].provider[0].key_arn == aws_kms_key.main.arn
    error_message = "The cluster's secrets are encrypted with the environment's key."
  }

  assert {
    condition     = aws_kms_key.main.enable_key_rotation
    error_message = "The key is rotated."
  }

  assert {
    condition     = aws_launch_template.nodes.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "Nodes' disks are encrypted."
  }

  assert {
    condition     = aws_cloudwatch_log_group.cluster.kms_key_id == aws_kms_key.main.arn
    error_message = "The control plane's logs are encrypted."
  }

  # The control plane logs everything and forgets it in time.
  assert {
    condition     = toset(aws_eks_cluster.main.enabled_cluster_log_types) == toset(["api", "audit", "authenticator", "controllerManager", "scheduler"])
    error_message = "All five logs."
  }

  assert {
    condition     = aws_cloudwatch_log_group.cluster.name == "/aws/eks/math-service-dev/cluster" && aws_cloudwatch_log_group.cluster.retention_in_days == 14
    error_message = "EKS writes to the group of this name; one that it made itself would be kept for ever."
  }

  # Old versions are upgraded and not paid for.
  assert {
    condition     = aws_eks_cluster.main.upgrade_policy[0].support_type == "STANDARD"
    error_message = "Extended support costs six times as much."
  }

  assert {
    condition     = aws_eks_cluster.main.version == "1.35" && aws_eks_node_group.standard.version == aws_eks_cluster.main.version
    error_message = "Nodes have the cluster's version."
  }

  # Pods cannot take the nodes rights.
  assert {
    condition     = aws_launch_template.nodes.metadata_options[0].http_tokens == "required" && aws_launch_template.nodes.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "The node's credentials end at the node."
  }

  assert {
    condition     = aws_eks_node_group.standard.launch_template[0].id == aws_launch_template.nodes.id && aws_eks_node_group.standard.launch_template[0].version == tostring(aws_launch_template.nodes.latest_version)
    error_message = "The nodes follow that template."
  }

  assert {
    condition     = toset([for a in aws_iam_role_policy_attachment.node : a.policy_arn]) == toset(["arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy", "arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"])
    error_message = "A node joins the cluster and fetches images, and the network plug-in has a role of its own."
  }

  # Network policies are enforced.
  assert {
    condition     = jsondecode(aws_eks_addon.before_nodes["vpc-cni"].configuration_values).enableNetworkPolicy == "true"
    error_message = "Without it a NetworkPolicy is accepted and ignored."
  }

  assert {
    condition     = one(aws_eks_addon.before_nodes["vpc-cni"].pod_identity_association).service_account == "aws-node" && one(aws_eks_addon.before_nodes["vpc-cni"].pod_identity_association).role_arn == aws_iam_role.pod["vpc_cni"].arn
    error_message = "The plug-in's rights are its pods'."
  }

  # Network proxy and identities come before the nodes and the rest after.
  assert {
    condition     = keys(aws_eks_addon.before_nodes) == ["eks-pod-identity-agent", "kube-proxy", "vpc-cni"] && keys(aws_eks_addon.on_nodes) == ["coredns", "metrics-server"]
    error_message = "Nodes are ready with a network only, and the others need nodes to run on."
  }

  assert {
    condition     = aws_eks_cluster.main.bootstrap_self_managed_addons == false
    error_message = "No second copy of them, without our settings."
  }

  # The autoscaler finds the group behind the nodes.
  assert {
    condition = { for key, tag in aws_autoscaling_group_tag.autoscaler : tag.tag[0].key => tag.tag[0].value } == {
      "k8s.io/cluster-autoscaler/enabled"                  = "true"
      "k8s.io/cluster-autoscaler/math-service-dev"         = "owned"
      "k8s.io/cluster-autoscaler/node-template/label/role" = "worker"
    }
    error_message = "The tags of the Auto Scaling group."
  }

  assert {
    condition     = alltrue([for tag in aws_autoscaling_group_tag.autoscaler : tag.autoscaling_group_name == "eks-standard-workers-mock"])
    error_message = "It is the nodes' group."
  }
}

run "who_is_named_reaches_the_api_and_nobody_else" {
  variables {
    api_public_cidrs = ["203.0.113.7/32"]
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_public_access && toset(aws_eks_cluster.main.vpc_config[0].public_access_cidrs) == toset(["203.0.113.7/32"])
    error_message = "The API is open to the named address."
  }

  assert {
    condition     = aws_eks_cluster.main.vpc_config[0].endpoint_private_access
    error_message = "Nodes go on using the private address."
  }
}

run "the_key_serves_the_groups_that_it_encrypts" {
  variables {
    database = true
  }

  assert {
    condition = alltrue([
      for name in concat([aws_cloudwatch_log_group.cluster.name, aws_cloudwatch_log_group.flow.name], [for group in aws_cloudwatch_log_group.database : group.name]) : anytrue([
        for pattern in jsondecode(aws_kms_key.main.policy).Statement[1].Condition.ArnLike["kms:EncryptionContext:aws:logs:arn"] :
        startswith("arn:aws:logs:eu-west-2:111122223333:log-group:${name}", trimsuffix(pattern, "*"))
      ])
    ])
    error_message = "CloudWatch may use the key for exactly the groups that name it."
  }
}

run "who_gets_in_is_decided_by_access_entries_alone" {
  variables {
    cluster_admins = ["arn:aws:iam::111122223333:role/admin"]
  }

  assert {
    condition     = aws_eks_cluster.main.access_config[0].authentication_mode == "API"
    error_message = "The aws-auth map is not read."
  }

  assert {
    condition     = [for entry in aws_eks_access_entry.admin : entry.principal_arn] == ["arn:aws:iam::111122223333:role/admin"] && length(aws_eks_access_entry.deploy) == 0
    error_message = "The named ones have entries, and nobody else."
  }

  assert {
    condition     = [for a in aws_eks_access_policy_association.admin : a.policy_arn] == ["arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"]
    error_message = "They administer the cluster."
  }
}

run "values_that_cannot_work_are_refused" {
  command = plan

  variables {
    api_public_cidrs   = ["203.0.113.7"]
    cluster_admins     = ["arn:aws:sts::111122223333:assumed-role/admin/me"]
    nodes              = { min = 3, desired = 2, max = 4 }
    node_instance_type = "t4g.large"
    node_volume_gib    = 10
    kubernetes_version = "1.35.1"
    log_retention_days = 0
    environment        = "staging"
    region             = "London"
  }

  expect_failures = [var.api_public_cidrs, var.cluster_admins, var.nodes, var.node_instance_type, var.node_volume_gib, var.kubernetes_version, var.log_retention_days, var.environment, var.region]
}
