# Who may do what, read from the policies as AWS would get them.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  environment       = "dev"
  github_repository = "example/math-service"
}

run "rights_end_at_what_they_are_for" {
  # A pods role is for its service account in this cluster only.
  assert {
    condition = alltrue([
      for name, role in aws_iam_role.pod : jsondecode(role.assume_role_policy).Statement == [{
        Effect    = "Allow"
        Principal = { Service = "pods.eks.amazonaws.com" }
        Action    = ["sts:AssumeRole", "sts:TagSession"]
        Condition = {
          StringEquals = {
            "aws:RequestTag/eks-cluster-name"           = "math-service-dev"
            "aws:RequestTag/kubernetes-namespace"       = local.pods[name].namespace
            "aws:RequestTag/kubernetes-service-account" = local.pods[name].service_account
          }
        }
      }]
    ])
    error_message = "Cluster, namespace and ServiceAccount to the letter."
  }

  assert {
    condition     = alltrue([for name, a in aws_eks_pod_identity_association.pod : a.namespace == local.pods[name].namespace && a.service_account == local.pods[name].service_account && a.role_arn == aws_iam_role.pod[name].arn && a.cluster_name == "math-service-dev"])
    error_message = "Associations and roles agree."
  }

  # The service reads and writes its table and nothing else.
  assert {
    condition = jsondecode(aws_iam_role_policy.service.policy).Statement == [
      {
        Sid      = "UseTheTable"
        Effect   = "Allow"
        Action   = ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"]
        Resource = [aws_dynamodb_table.state.arn, "${aws_dynamodb_table.state.arn}/index/records"]
      },
      {
        Sid      = "FindTheCluster"
        Effect   = "Allow"
        Action   = "eks:DescribeCluster"
        Resource = aws_eks_cluster.main.arn
      },
    ]
    error_message = "No scan, no change of the table, no other table, no other cluster."
  }

  assert {
    condition     = length(aws_eks_access_entry.jobs) == 0
    error_message = "The service gets into the cluster only where its Jobs API is asked for."
  }

  # What changes something is restricted.
  assert {
    condition = alltrue([
      for statement in flatten([for policy in [aws_iam_role_policy.build[0].policy, aws_iam_role_policy.cluster_autoscaler.policy, aws_iam_role_policy.load_balancer_controller.policy, aws_iam_role_policy.deploy[0].policy, aws_iam_role_policy.cloudformation[0].policy] : jsondecode(policy).Statement]) :
      flatten([statement.Resource]) != ["*"] || alltrue([
        for action in flatten([statement.Action]) : can(regex("^[a-z0-9-]+:(Describe|List|Get)", action)) || startswith(action, "logs:")
      ])
    ])
    error_message = "Everything may be looked at, and nothing changed, but the delivery of access logs, which has no names."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.load_balancer_controller.policy).Statement : try(statement.Condition, null) != null || statement.Sid == "Look" || statement.Sid == "InTheNetwork"])
    error_message = "The controller changes what has its tag."
  }

  # Github deploys from one repository and one environment.
  assert {
    condition = jsondecode(aws_iam_role.deploy[0].assume_role_policy).Statement == [{
      Effect    = "Allow"
      Principal = { Federated = "arn:aws:iam::111122223333:oidc-provider/token.actions.githubusercontent.com" }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "repo:example/math-service:environment:dev"
        }
      }
    }]
    error_message = "Compared to the letter, and nothing else gets in."
  }

  # What github deploys is in one namespace.
  assert {
    condition     = aws_eks_access_policy_association.deploy[0].access_scope[0].type == "namespace" && toset(aws_eks_access_policy_association.deploy[0].access_scope[0].namespaces) == toset(["default"]) && aws_eks_access_policy_association.deploy[0].policy_arn == "arn:aws:eks::aws:cluster-access-policy/AmazonEKSEditPolicy"
    error_message = "It edits the service's namespace."
  }

  assert {
    condition     = jsondecode(aws_iam_role.build[0].assume_role_policy).Statement[0].Condition.StringEquals["token.actions.githubusercontent.com:sub"] == "repo:example/math-service:environment:build"
    error_message = "Images are pushed from an environment of their own."
  }

  assert {
    condition = toset([for s in jsondecode(aws_iam_role_policy.build[0].policy).Statement : "${s.Sid} ${s.Resource}"]) == toset([
      "LogInToTheRegistry *", "PushImages arn:aws:ecr:eu-west-2:111122223333:repository/my-math-service",
    ])
    error_message = "They go to the one repository."
  }

  assert {
    condition     = alltrue([for a in flatten([for s in jsondecode(aws_iam_role_policy.deploy[0].policy).Statement : s.Action]) : !startswith(a, "ecr:") || can(regex("^ecr:(Batch)?(Get|Check|Describe)", a))])
    error_message = "Who deploys changes no image."
  }

  assert {
    condition     = alltrue([for a in flatten([for s in jsondecode(aws_iam_role_policy.build[0].policy).Statement : s.Action]) : !strcontains(a, "Delete") && !strcontains(a, "*")])
    error_message = "Who builds deletes none."
  }

  # What a template makes stays under the stacks name and the boundary.
  assert {
    condition     = [for s in jsondecode(aws_iam_role_policy.cloudformation[0].policy).Statement : s.Condition.StringEquals["iam:PermissionsBoundary"] if contains(flatten([s.Action]), "iam:PutRolePolicy") || contains(flatten([s.Action]), "iam:AttachRolePolicy") || contains(flatten([s.Action]), "iam:CreateRole")] == [aws_iam_policy.function_boundary[0].arn]
    error_message = "No role without the boundary gets rights."
  }

  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.cloudformation[0].policy).Statement : !anytrue([for a in flatten([s.Action]) : startswith(a, "iam:") && strcontains(a, "Boundary") || a == "iam:*" || a == "*" || startswith(a, "iam:CreatePolicy")])])
    error_message = "The boundary cannot be taken away or changed."
  }

  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_policy.function_boundary[0].policy).Statement : alltrue([for a in flatten([s.Action]) : can(regex("^(dynamodb:((BatchGet|Delete|Get|Put|Update)Item|Query)$|eks:DescribeCluster$|logs:(Create|Put)|xray:Put)", a))])])
    error_message = "The function keeps sequences, logs and traces."
  }

  assert {
    condition = [for s in jsondecode(aws_iam_role_policy.deploy[0].policy).Statement : s if s.Sid == "LetCloudFormationMakeIt"] == [{
      Sid       = "LetCloudFormationMakeIt"
      Effect    = "Allow"
      Action    = "iam:PassRole"
      Resource  = aws_iam_role.cloudformation[0].arn
      Condition = { StringEquals = { "iam:PassedToService" = "cloudformation.amazonaws.com" } }
    }]
    error_message = "Who deploys passes this role on, to CloudFormation only."
  }

  assert {
    condition     = contains([for s in jsondecode(aws_iam_role_policy.deploy[0].policy).Statement : s.Resource if s.Sid == "DeployTheStack"][0], "arn:aws:cloudformation:eu-west-2:111122223333:stack/math-service-dev/*")
    error_message = "For one stack."
  }
}

run "the_jobs_api_is_let_into_the_cluster_when_asked_and_images_are_built_where_the_repository_is" {
  variables {
    jobs             = true
    makes_repository = false
  }

  assert {
    condition     = aws_eks_access_entry.jobs[0].principal_arn == aws_iam_role.pod["service"].arn && toset(aws_eks_access_entry.jobs[0].kubernetes_groups) == toset(["math-service-jobs"])
    error_message = "The pods' role, as the overlay's group."
  }

  assert {
    condition     = length(aws_iam_role.build) == 0 && length(aws_iam_role.deploy) == 1
    error_message = "One role of an account pushes."
  }
}

run "without_a_repository_nobody_deploys" {
  variables {
    github_repository = ""
  }

  assert {
    condition     = length(aws_iam_role.build) + length(aws_iam_role.deploy) + length(aws_iam_role.cloudformation) + length(aws_iam_policy.function_boundary) + length(aws_eks_access_entry.deploy) == 0 && output.deploy_role_arn == null
    error_message = "No role that nobody asked for."
  }
}

run "what_is_no_repository_is_refused" {
  command = plan

  variables {
    github_repository = "example/*"
  }

  expect_failures = [var.github_repository]
}

run "an_owner_is_no_repository" {
  command = plan

  variables {
    github_repository = "example"
  }

  expect_failures = [var.github_repository]
}
