# What keeps the sequences (the table, or the database where there is one), the registry, and what balancers need.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment = "dev"
}

run "the_table_and_the_registry_and_no_database" {
  # The table is as the service writes it.
  assert {
    condition     = aws_dynamodb_table.state.hash_key == "id" && aws_dynamodb_table.state.range_key == null && [for a in aws_dynamodb_table.state.attribute : "${a.name} ${a.type}"] == ["id S", "log S", "position S"]
    error_message = "One key, a string."
  }

  assert {
    condition     = [for i in aws_dynamodb_table.state.global_secondary_index : "${i.name} ${i.hash_key} ${i.range_key} ${i.projection_type}"] == ["records log position ALL"]
    error_message = "History and audit are read through an index."
  }

  assert {
    condition     = aws_dynamodb_table.state.ttl[0].enabled && aws_dynamodb_table.state.ttl[0].attribute_name == "expires_at"
    error_message = "Sessions expire by themselves."
  }

  assert {
    condition     = aws_dynamodb_table.state.billing_mode == "PAY_PER_REQUEST" && aws_dynamodb_table.state.point_in_time_recovery[0].enabled
    error_message = "Idle, it costs nothing; and what was deleted comes back."
  }

  assert {
    condition     = output.table_name == "math-service-dev-state" && output.state_url == "dynamodb://math-service-dev-state?region=eu-west-2"
    error_message = "The outputs name it."
  }

  # There is no database unless asked.
  assert {
    condition     = length(aws_db_instance.main) + length(aws_security_group.database) + length(aws_db_subnet_group.main) + length(aws_cloudwatch_log_group.database) == 0 && output.database_host == null && output.database_secret == null
    error_message = "It costs money, and the table does not."
  }

  # Tags cannot move and images are scanned and not kept for ever.
  assert {
    condition     = aws_ecr_repository.service[0].image_tag_mutability == "IMMUTABLE" && aws_ecr_repository.service[0].image_scanning_configuration[0].scan_on_push && !aws_ecr_repository.service[0].force_delete
    error_message = "What was tried under a tag is what runs under it."
  }

  assert {
    condition     = [for rule in jsondecode(aws_ecr_lifecycle_policy.service[0].policy).rules : rule.action.type] == ["expire", "expire"] && aws_ecr_lifecycle_policy.service[0].repository == aws_ecr_repository.service[0].name
    error_message = "Old images go."
  }

  assert {
    condition     = output.registry_url == "111122223333.dkr.ecr.eu-west-2.amazonaws.com/my-math-service"
    error_message = "The output is what docker push needs."
  }
}

run "the_database_is_private_encrypted_and_nobody_knows_its_password" {
  variables {
    database = true
  }

  assert {
    condition     = !aws_db_instance.main[0].publicly_accessible && toset(aws_db_subnet_group.main[0].subnet_ids) == toset([for s in aws_subnet.private : s.id]) && aws_db_instance.main[0].db_subnet_group_name == aws_db_subnet_group.main[0].name
    error_message = "It is in the private subnets."
  }

  assert {
    condition     = aws_db_instance.main[0].storage_encrypted && aws_db_instance.main[0].kms_key_id == aws_kms_key.main.arn
    error_message = "It is encrypted with the environment's key."
  }

  assert {
    condition     = aws_db_instance.main[0].manage_master_user_password && aws_db_instance.main[0].password == null && aws_db_instance.main[0].password_wo == null
    error_message = "RDS makes the password and keeps it in Secrets Manager: it is in no file and in no state."
  }

  assert {
    condition     = output.database_secret == "arn:aws:secretsmanager:eu-west-2:111122223333:secret:rds!db-mock" && output.database_name == "math_service"
    error_message = "The outputs tell where."
  }

  assert {
    condition     = [for p in aws_db_parameter_group.main[0].parameter : p.value if p.name == "rds.force_ssl"] == ["1"] && aws_db_instance.main[0].parameter_group_name == aws_db_parameter_group.main[0].name
    error_message = "TLS only."
  }

  assert {
    condition     = aws_db_instance.main[0].backup_retention_period >= 7
    error_message = "A week of backups."
  }
}

run "only_nodes_reach_the_database" {
  variables {
    database = true
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.database[0].referenced_security_group_id == aws_eks_cluster.main.vpc_config[0].cluster_security_group_id && aws_vpc_security_group_ingress_rule.database[0].cidr_ipv4 == null && aws_vpc_security_group_ingress_rule.database[0].cidr_ipv6 == null
    error_message = "The nodes' group, and no addresses."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.database[0].from_port == 5432 && aws_vpc_security_group_ingress_rule.database[0].to_port == 5432 && aws_vpc_security_group_ingress_rule.database[0].ip_protocol == "tcp"
    error_message = "One port."
  }

  assert {
    condition     = toset(aws_db_instance.main[0].vpc_security_group_ids) == toset([aws_security_group.database[0].id]) && aws_vpc_security_group_ingress_rule.database[0].security_group_id == aws_security_group.database[0].id
    error_message = "No other group opens it."
  }
}

run "an_environment_may_use_the_repository_of_another" {
  variables {
    makes_repository = false
  }

  assert {
    condition     = length(aws_ecr_repository.service) == 0 && output.registry_url == "111122223333.dkr.ecr.eu-west-2.amazonaws.com/my-math-service"
    error_message = "The same address, and nothing made."
  }
}

run "a_certificate_comes_with_a_domain" {
  variables {
    domain = "math.example.com"
  }

  assert {
    condition     = aws_acm_certificate.service[0].domain_name == "math.example.com" && aws_acm_certificate.service[0].validation_method == "DNS" && output.certificate_arn == aws_acm_certificate.service[0].arn
    error_message = "For the overlay's annotation."
  }
}

run "values_that_are_something_else_are_refused" {
  command = plan

  variables {
    domain                  = "https://math.example.com"
    database_instance_class = "t4g.micro"
  }

  expect_failures = [var.domain, var.database_instance_class]
}
