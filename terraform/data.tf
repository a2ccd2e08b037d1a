data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

# Local Zones are opted into, and have neither NAT gateways nor EKS's control plane.
data "aws_availability_zones" "available" {
  # checkov:skip=CKV_AWS_394:Only the first three by name are used: a zone that AWS adds comes after them and moves nothing.
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

# Of an environment that does not make the repository itself.
data "aws_ecr_repository" "service" {
  count = var.makes_repository ? 0 : 1
  name  = local.repository
}

# bootstrap/ makes it.
data "aws_iam_openid_connect_provider" "github" {
  count = var.github_repository == "" ? 0 : 1
  url   = "https://token.actions.githubusercontent.com"
}
