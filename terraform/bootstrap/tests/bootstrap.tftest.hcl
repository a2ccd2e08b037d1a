# The bucket of the states, and who may plan and apply.

mock_provider "aws" {
  source = "../tests/mocks"
}

run "the_bucket_is_private_versioned_and_encrypted" {
  assert {
    condition     = aws_s3_bucket.state.bucket == "math-service-terraform-111122223333"
    error_message = "The scripts look for this name."
  }

  assert {
    condition     = !aws_s3_bucket.state.force_destroy
    error_message = "It is not deleted with what is in it."
  }

  assert {
    condition     = aws_s3_bucket_versioning.state.versioning_configuration[0].status == "Enabled"
    error_message = "A state that was written by mistake is one version back."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.state.block_public_acls && aws_s3_bucket_public_access_block.state.block_public_policy && aws_s3_bucket_public_access_block.state.ignore_public_acls && aws_s3_bucket_public_access_block.state.restrict_public_buckets
    error_message = "Nothing of it is ever public."
  }

  assert {
    condition     = one(aws_s3_bucket_server_side_encryption_configuration.state.rule).apply_server_side_encryption_by_default[0].sse_algorithm == "AES256"
    error_message = "It is encrypted."
  }

  assert {
    condition     = jsondecode(aws_s3_bucket_policy.state.policy).Statement[0].Effect == "Deny" && jsondecode(aws_s3_bucket_policy.state.policy).Statement[0].Condition == { Bool = { "aws:SecureTransport" = "false" } }
    error_message = "It answers over TLS only."
  }
}

run "without_a_repository_github_gets_no_role" {
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) + length(aws_iam_role.terraform) + length(aws_iam_role_policy.plan) == 0 && output.plan_role_arn == null && output.apply_role_arn == null
    error_message = "Nothing that nobody asked for."
  }
}

run "who_may_change_is_in_environments_of_their_own" {
  variables {
    github_repository = "example/math-service"
  }

  assert {
    condition = { for name, role in aws_iam_role.terraform : name => jsondecode(role.assume_role_policy).Statement[0].Condition } == {
      plan = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = ["repo:example/math-service:environment:dev-plan", "repo:example/math-service:environment:prod-plan"]
      } }
      apply = { StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = ["repo:example/math-service:environment:dev-apply", "repo:example/math-service:environment:prod-apply"]
      } }
    }
    error_message = "To the letter, and no environment has both."
  }

  assert {
    condition     = { for name, a in aws_iam_role_policy_attachment.terraform : name => a.policy_arn } == { plan = "arn:aws:iam::aws:policy/ReadOnlyAccess", apply = "arn:aws:iam::aws:policy/AdministratorAccess" }
    error_message = "A plan only looks."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.plan[0].policy).Statement[0].Resource == "arn:aws:s3:::math-service-terraform-111122223333/*.tflock"
    error_message = "It writes the lock and never the state."
  }

  assert {
    condition     = toset(aws_iam_openid_connect_provider.github[0].client_id_list) == toset(["sts.amazonaws.com"]) && aws_iam_openid_connect_provider.github[0].url == "https://token.actions.githubusercontent.com"
    error_message = "GitHub's own issuer, for AWS."
  }
}

run "an_account_has_one_provider" {
  variables {
    github_repository     = "example/math-service"
    makes_github_provider = false
  }

  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0 && jsondecode(aws_iam_role.terraform["plan"].assume_role_policy).Statement[0].Principal.Federated == "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com"
    error_message = "The one that is there is used."
  }
}

run "a_pattern_is_no_repository" {
  command = plan

  variables {
    github_repository = "*/math-service"
  }

  expect_failures = [var.github_repository]
}
