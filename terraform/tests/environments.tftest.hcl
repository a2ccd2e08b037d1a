# config/ as it is: production differs from development where it should, and both fit into one account.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "config" {
  module {
    source = "./tests/config"
  }

  assert {
    condition     = keys(output.dev) == keys(output.prod)
    error_message = "Each says the same things; and what is added there is to be passed on below."
  }

  assert {
    condition     = keys(output.dev) == ["api_public_cidrs", "cluster_admins", "deletion_protection", "environment", "github_repository", "high_availability", "log_retention_days", "makes_repository", "vpc_cidr"]
    error_message = "What is added there is to be passed on below."
  }

  assert {
    condition     = output.dev.environment == "dev" && output.prod.environment == "prod"
    error_message = "A file is for the environment that it is named after."
  }

  assert {
    condition     = output.dev.vpc_cidr != output.prod.vpc_cidr
    error_message = "Networks with the same addresses can never be joined."
  }

  assert {
    condition     = [for config in [output.dev, output.prod] : config.makes_repository] == [true, false]
    error_message = "One of the two makes the repository."
  }

  assert {
    condition     = !contains(concat(output.dev.api_public_cidrs, output.prod.api_public_cidrs), "0.0.0.0/0")
    error_message = "Nobody asked for the whole internet."
  }
}

run "dev" {
  variables {
    environment         = run.config.dev.environment
    vpc_cidr            = run.config.dev.vpc_cidr
    high_availability   = run.config.dev.high_availability
    deletion_protection = run.config.dev.deletion_protection
    log_retention_days  = run.config.dev.log_retention_days
    makes_repository    = run.config.dev.makes_repository
    api_public_cidrs    = run.config.dev.api_public_cidrs
    cluster_admins      = run.config.dev.cluster_admins
    github_repository   = run.config.dev.github_repository
    database            = true
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 1 && !aws_db_instance.main[0].multi_az
    error_message = "Development is cheap."
  }

  assert {
    condition     = !aws_eks_cluster.main.deletion_protection && !aws_dynamodb_table.state.deletion_protection_enabled && !aws_db_instance.main[0].deletion_protection && aws_db_instance.main[0].skip_final_snapshot
    error_message = "It goes when it is told to."
  }

  assert {
    condition     = aws_eks_cluster.main.name == "math-service-dev" && aws_dynamodb_table.state.name == "math-service-dev-state" && aws_kms_alias.main.name == "alias/math-service-dev"
    error_message = "Names say which environment."
  }
}

run "prod" {
  variables {
    environment         = run.config.prod.environment
    vpc_cidr            = run.config.prod.vpc_cidr
    high_availability   = run.config.prod.high_availability
    deletion_protection = run.config.prod.deletion_protection
    log_retention_days  = run.config.prod.log_retention_days
    makes_repository    = run.config.prod.makes_repository
    api_public_cidrs    = run.config.prod.api_public_cidrs
    cluster_admins      = run.config.prod.cluster_admins
    github_repository   = run.config.prod.github_repository
    database            = true
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 3 && aws_db_instance.main[0].multi_az && alltrue([for e in aws_vpc_endpoint.interface : length(e.subnet_ids) == 3])
    error_message = "Production outlives a zone."
  }

  assert {
    condition     = aws_eks_cluster.main.deletion_protection && aws_dynamodb_table.state.deletion_protection_enabled && aws_db_instance.main[0].deletion_protection && aws_db_instance.main[0].final_snapshot_identifier == "math-service-prod-final" && !aws_db_instance.main[0].skip_final_snapshot
    error_message = "Production is not deleted by mistake."
  }

  assert {
    condition     = aws_cloudwatch_log_group.cluster.retention_in_days >= 365 && aws_cloudwatch_log_group.flow.retention_in_days >= 365
    error_message = "A year of logs."
  }

  assert {
    condition     = aws_eks_cluster.main.name == "math-service-prod" && aws_vpc.main.cidr_block == "10.1.0.0/16"
    error_message = "Names and addresses of its own."
  }
}
