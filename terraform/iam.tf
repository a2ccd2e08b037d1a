# Who may do what: the cluster and its nodes, pods by their ServiceAccount, and the workflows that deploy.

resource "aws_iam_role" "cluster" {
  name        = "${local.name}-cluster"
  description = "Control plane of the cluster ${local.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "cluster" {
  role       = aws_iam_role.cluster.name
  policy_arn = "${local.arn}:iam::aws:policy/AmazonEKSClusterPolicy"
}

resource "aws_iam_role" "node" {
  name        = "${local.name}-node"
  description = "Nodes of the cluster ${local.name}: they join it and fetch images"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = toset(["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"])

  role       = aws_iam_role.node.name
  policy_arn = "${local.arn}:iam::aws:policy/${each.key}"
}

# Pods

locals {
  pods = {
    vpc_cni                  = { namespace = "kube-system", service_account = "aws-node" }
    cluster_autoscaler       = { namespace = "kube-system", service_account = "cluster-autoscaler" }
    load_balancer_controller = { namespace = "kube-system", service_account = "aws-load-balancer-controller" }
    service                  = { namespace = local.service_namespace, service_account = local.service_account }
  }
}

resource "aws_iam_role" "pod" {
  for_each = local.pods

  name        = "${local.name}-pod-${replace(each.key, "_", "-")}"
  description = "Pods of the ServiceAccount ${each.value.namespace}/${each.value.service_account} in the cluster ${local.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "pods.eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
      # An association elsewhere in the account does not get it.
      Condition = {
        StringEquals = {
          "aws:RequestTag/eks-cluster-name"           = local.name
          "aws:RequestTag/kubernetes-namespace"       = each.value.namespace
          "aws:RequestTag/kubernetes-service-account" = each.value.service_account
        }
      }
    }]
  })
}

# The network plug-in's own is the add-on's, in eks.tf.
resource "aws_eks_pod_identity_association" "pod" {
  for_each = { for name, pod in local.pods : name => pod if name != "vpc_cni" }

  cluster_name    = aws_eks_cluster.main.name
  namespace       = each.value.namespace
  service_account = each.value.service_account
  role_arn        = aws_iam_role.pod[each.key].arn
}

resource "aws_iam_role_policy_attachment" "vpc_cni" {
  role       = aws_iam_role.pod["vpc_cni"].name
  policy_arn = "${local.arn}:iam::aws:policy/AmazonEKS_CNI_Policy"
}

# What the service sends to the table (it reads and writes items and queries the index; no scan, no change of the table),
# and the one question of its Jobs API, where this cluster is.
resource "aws_iam_role_policy" "service" {
  name = "state"
  role = aws_iam_role.pod["service"].id
  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [local.uses_the_table, local.finds_the_cluster]
  })
}

# Lets the pods into the cluster, as the group that k8s/overlays/jobs gives its rights to.
resource "aws_eks_access_entry" "jobs" {
  count = var.jobs ? 1 : 0

  cluster_name      = aws_eks_cluster.main.name
  principal_arn     = aws_iam_role.pod["service"].arn
  kubernetes_groups = ["math-service-jobs"]
}

locals {
  uses_the_table = {
    Sid    = "UseTheTable"
    Effect = "Allow"
    Action = ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"]
    # The index is where history and audit are read.
    Resource = [aws_dynamodb_table.state.arn, "${aws_dynamodb_table.state.arn}/index/records"]
  }

  finds_the_cluster = {
    Sid      = "FindTheCluster"
    Effect   = "Allow"
    Action   = "eks:DescribeCluster"
    Resource = aws_eks_cluster.main.arn
  }
}

# As in cluster-config.yaml.
resource "aws_iam_role_policy" "cluster_autoscaler" {
  name = "scale"
  role = aws_iam_role.pod["cluster_autoscaler"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect = "Allow"
        Action = [
          "autoscaling:DescribeAutoScalingGroups",
          "autoscaling:DescribeAutoScalingInstances",
          "autoscaling:DescribeLaunchConfigurations",
          "autoscaling:DescribeScalingActivities",
          "autoscaling:DescribeTags",
          "ec2:DescribeImages",
          "ec2:DescribeInstanceTypes",
          "ec2:DescribeLaunchTemplateVersions",
          "ec2:GetInstanceTypesFromInstanceRequirements",
        ]
        Resource = "*"
      },
      {
        Effect    = "Allow"
        Action    = ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        Resource  = "${local.arn}:autoscaling:${local.here}:autoScalingGroup:*:autoScalingGroupName/*"
        Condition = { StringEquals = { for key, value in local.autoscaler_tags : "aws:ResourceTag/${key}" => value } }
      },
      {
        Effect   = "Allow"
        Action   = "eks:DescribeNodegroup"
        Resource = "${local.arn}:eks:${local.here}:nodegroup/${local.name}/*"
      },
    ]
  })
}

# Workflows of GitHub's, which come with a token of GitHub's and no key of ours. Roles for Terraform itself are in
# bootstrap/: these cannot change what is in this folder.

locals {
  # Who may be which, to the letter: the repository, and one of its environments, with the reviewers that it has there. No
  # branch and no pull request of it is enough, and no fork.
  trusts_environment = { for environment in ["build", var.environment] : environment => jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = one(data.aws_iam_openid_connect_provider.github[*].arn) }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
          "token.actions.githubusercontent.com:sub" = "repo:${var.github_repository}:environment:${environment}"
        }
      }
    }]
  }) }
  # Whose the repository of images is, makes the one role that may add to it.
  builds = var.github_repository != "" && var.makes_repository

  pulls = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer"]
  log_in_to_the_registry = {
    Sid      = "LogInToTheRegistry"
    Effect   = "Allow"
    Action   = "ecr:GetAuthorizationToken"
    Resource = "*"
  }
}

resource "aws_iam_role" "build" {
  count = local.builds ? 1 : 0

  # Without an environment's name: what it builds is every environment's.
  name               = "math-service-build"
  description        = "Workflows of ${var.github_repository} in the environment build: push images"
  assume_role_policy = local.trusts_environment.build
}

resource "aws_iam_role_policy" "build" {
  count = local.builds ? 1 : 0

  name = "push"
  role = aws_iam_role.build[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.log_in_to_the_registry,
      {
        Sid      = "PushImages"
        Effect   = "Allow"
        Action   = concat(local.pulls, ["ecr:CompleteLayerUpload", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"])
        Resource = local.repository_arn
      },
    ]
  })
}

resource "aws_iam_role" "deploy" {
  count = var.github_repository == "" ? 0 : 1

  name               = "${local.name}-deploy"
  description        = "Workflows of ${var.github_repository} in the environment ${var.environment}: update the Deployment and the function"
  assume_role_policy = local.trusts_environment[var.environment]
}

resource "aws_iam_role_policy" "deploy" {
  count = var.github_repository == "" ? 0 : 1

  name = "deploy"
  role = aws_iam_role.deploy[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      local.log_in_to_the_registry,
      {
        # To verify who signed it. Nodes fetch it themselves.
        Sid      = "LookAtImages"
        Effect   = "Allow"
        Action   = local.pulls
        Resource = local.repository_arn
      },
      # What it may do there, the access entry below says.
      local.finds_the_cluster,
      {
        Sid    = "DeployTheStack"
        Effect = "Allow"
        Action = [
          "cloudformation:CreateChangeSet",
          "cloudformation:DeleteChangeSet",
          "cloudformation:DescribeChangeSet",
          "cloudformation:DescribeStackEvents",
          "cloudformation:DescribeStacks",
          "cloudformation:ExecuteChangeSet",
          "cloudformation:GetTemplate",
          "cloudformation:GetTemplateSummary",
          "cloudformation:ListStackResources",
        ]
        Resource = [
          "${local.arn}:cloudformation:${local.here}:stack/${local.name}/*",
          # SAM's transform, and the stack of SAM's own that has the bucket for bundles.
          "${local.arn}:cloudformation:${var.region}:aws:transform/Serverless-2016-10-31",
          "${local.arn}:cloudformation:${local.here}:stack/aws-sam-cli-managed-default/*",
        ]
      },
      {
        Sid      = "UploadTheBundle"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${local.arn}:s3:::aws-sam-cli-managed-default-*/*"
      },
      {
        Sid       = "LetCloudFormationMakeIt"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = one(aws_iam_role.cloudformation[*].arn)
        Condition = { StringEquals = { "iam:PassedToService" = "cloudformation.amazonaws.com" } }
      },
    ]
  })
}

# In the cluster: what is in one namespace, as `kubectl apply` changes it; no rights of others, nothing of the nodes.
resource "aws_eks_access_entry" "deploy" {
  count = var.github_repository == "" ? 0 : 1

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_iam_role.deploy[0].arn
}

resource "aws_eks_access_policy_association" "deploy" {
  count = var.github_repository == "" ? 0 : 1

  cluster_name  = aws_eks_cluster.main.name
  principal_arn = aws_eks_access_entry.deploy[0].principal_arn
  policy_arn    = "${local.arn}:eks::aws:cluster-access-policy/AmazonEKSEditPolicy"

  access_scope {
    type       = "namespace"
    namespaces = [local.service_namespace]
  }
}

# What CloudFormation makes of template.yaml, it makes as this role (`sam deploy --role-arn`), and only under the
# environment's name.
resource "aws_iam_role" "cloudformation" {
  count = var.github_repository == "" ? 0 : 1

  name        = "${local.name}-cloudformation"
  description = "CloudFormation, for the stack ${local.name} of template.yaml"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "cloudformation.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

locals {
  # Every name that the stack gives begins with it: CloudFormation puts the stack's name first.
  stack = local.name
}

resource "aws_iam_role_policy" "cloudformation" {
  count = var.github_repository == "" ? 0 : 1

  name = "template"
  role = aws_iam_role.cloudformation[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Transform"
        Effect   = "Allow"
        Action   = "cloudformation:CreateChangeSet"
        Resource = "${local.arn}:cloudformation:${var.region}:aws:transform/Serverless-2016-10-31"
      },
      {
        Sid      = "Bundle"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = "${local.arn}:s3:::aws-sam-cli-managed-default-*/*"
      },
      {
        Sid      = "Function"
        Effect   = "Allow"
        Action   = "lambda:*"
        Resource = "${local.arn}:lambda:${local.here}:function:${local.stack}-*"
      },
      {
        Sid      = "Api"
        Effect   = "Allow"
        Action   = ["apigateway:DELETE", "apigateway:GET", "apigateway:PATCH", "apigateway:POST", "apigateway:PUT", "apigateway:TagResource", "apigateway:UntagResource"]
        Resource = ["${local.arn}:apigateway:${var.region}::/apis", "${local.arn}:apigateway:${var.region}::/apis/*", "${local.arn}:apigateway:${var.region}::/tags/*"]
      },
      {
        Sid    = "Logs"
        Effect = "Allow"
        Action = ["logs:CreateLogGroup", "logs:DeleteLogGroup", "logs:DeleteRetentionPolicy", "logs:ListTagsForResource", "logs:PutRetentionPolicy", "logs:TagResource", "logs:UntagResource"]
        Resource = [
          "${local.arn}:logs:${local.here}:log-group:${local.stack}-*",
          "${local.arn}:logs:${local.here}:log-group:/aws/vendedlogs/${local.stack}*",
        ]
      },
      {
        Sid      = "AccessLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery"]
        Resource = "*"
      },
      # The schedule by which the function writes the history of Jobs.
      {
        Sid      = "Schedule"
        Effect   = "Allow"
        Action   = ["events:DeleteRule", "events:DescribeRule", "events:PutRule", "events:PutTargets", "events:RemoveTargets"]
        Resource = "${local.arn}:events:${local.here}:rule/${local.stack}-*"
      },
      {
        Sid      = "Table"
        Effect   = "Allow"
        Action   = ["dynamodb:CreateTable", "dynamodb:DeleteTable", "dynamodb:Describe*", "dynamodb:ListTagsOfResource", "dynamodb:TagResource", "dynamodb:UntagResource", "dynamodb:UpdateTable", "dynamodb:UpdateTimeToLive"]
        Resource = "${local.arn}:dynamodb:${local.here}:table/${local.stack}-StateTable-*"
      },
      {
        Sid      = "Alarms"
        Effect   = "Allow"
        Action   = ["cloudwatch:DeleteAlarms", "cloudwatch:DescribeAlarms", "cloudwatch:PutMetricAlarm", "cloudwatch:TagResource", "cloudwatch:UntagResource"]
        Resource = "${local.arn}:cloudwatch:${local.here}:alarm:${local.stack}-*"
      },
      {
        Sid      = "FunctionRole"
        Effect   = "Allow"
        Action   = ["iam:DeleteRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:GetRole", "iam:GetRolePolicy", "iam:TagRole", "iam:UntagRole"]
        Resource = "${local.arn}:iam::${local.account}:role/${local.stack}-MathServiceFunctionRole-*"
      },
      {
        # What would give a role rights, only to one that the boundary holds.
        Sid       = "RightsOfTheFunction"
        Effect    = "Allow"
        Action    = ["iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePolicy"]
        Resource  = "${local.arn}:iam::${local.account}:role/${local.stack}-MathServiceFunctionRole-*"
        Condition = { StringEquals = { "iam:PermissionsBoundary" = one(aws_iam_policy.function_boundary[*].arn) } }
      },
      {
        Sid       = "RoleOfTheFunction"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = "${local.arn}:iam::${local.account}:role/${local.stack}-MathServiceFunctionRole-*"
        Condition = { StringEquals = { "iam:PassedToService" = "lambda.amazonaws.com" } }
      },
    ]
  })
}

# The most that the function can be allowed, whatever a template says: without it, whoever may deploy a function could
# deploy one with any right.
resource "aws_iam_policy" "function_boundary" {
  count = var.github_repository == "" ? 0 : 1

  name        = "${local.name}-function-boundary"
  description = "The most that the function of the stack ${local.name} can be allowed"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      merge(local.uses_the_table, { Resource = [aws_dynamodb_table.state.arn, "${aws_dynamodb_table.state.arn}/index/records", "${local.arn}:dynamodb:${local.here}:table/${local.stack}-StateTable-*"] }),
      local.finds_the_cluster,
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.arn}:logs:${local.here}:log-group:${local.stack}-*"
      },
      {
        Effect   = "Allow"
        Action   = ["xray:PutTelemetryRecords", "xray:PutTraceSegments"]
        Resource = "*"
      },
    ]
  })
}
