# How workflows of GitHub's get in without a key of ours: they bring a token of GitHub's, which says of which repository
# and which of its environments they are. The role that deploys the service is each environment's own (../iam.tf).

resource "aws_iam_openid_connect_provider" "github" {
  count = local.github && var.makes_github_provider ? 1 : 0

  url            = "https://token.actions.githubusercontent.com"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_openid_connect_provider" "github" {
  count = local.github && !var.makes_github_provider ? 1 : 0

  url = "https://token.actions.githubusercontent.com"
}

locals {
  github   = var.github_repository != ""
  provider = one(concat(aws_iam_openid_connect_provider.github[*].arn, data.aws_iam_openid_connect_provider.github[*].arn))

  # GitHub's environments of each: those of the second should have reviewers.
  terraform_roles = {
    plan  = { environments = ["dev-plan", "prod-plan"], policy = "ReadOnlyAccess" }
    apply = { environments = ["dev-apply", "prod-apply"], policy = "AdministratorAccess" }
  }
}

resource "aws_iam_role" "terraform" {
  for_each = { for name, role in local.terraform_roles : name => role if local.github }

  name        = "math-service-terraform-${each.key}"
  description = "terraform ${each.key} by workflows of ${var.github_repository}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = local.provider }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = [for environment in each.value.environments : "repo:${var.github_repository}:environment:${environment}"]
        }
      }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "terraform" {
  for_each = aws_iam_role.terraform

  role       = each.value.name
  policy_arn = "${local.arn}:iam::aws:policy/${local.terraform_roles[each.key].policy}"
}

# A plan reads the state, and locks it meanwhile; it never writes it.
resource "aws_iam_role_policy" "plan" {
  count = local.github ? 1 : 0

  name = "lock"
  role = aws_iam_role.terraform["plan"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["s3:DeleteObject", "s3:PutObject"]
      Resource = "${aws_s3_bucket.state.arn}/*.tflock"
    }]
  })
}
