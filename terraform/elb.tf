# What a balancer in front of the Service needs. The base's Classic Load Balancer is made by the cluster itself, and needs
# the subnets' tags in vpc.tf. For k8s/overlays/alb: the rights of the AWS Load Balancer Controller, and a certificate.

locals {
  # The controller tags what it makes, and may change only what has the tag.
  made_here = { "aws:ResourceTag/elbv2.k8s.aws/cluster" = local.name }
  makes     = { "aws:RequestTag/elbv2.k8s.aws/cluster" = local.name }
  elb       = "${local.arn}:elasticloadbalancing:${local.here}"
  balancers = ["${local.elb}:loadbalancer/app/*", "${local.elb}:loadbalancer/net/*"]
  groups    = "${local.elb}:targetgroup/*"
  listeners = ["${local.elb}:listener/app/*", "${local.elb}:listener/net/*", "${local.elb}:listener-rule/app/*", "${local.elb}:listener-rule/net/*"]
  firewall  = "${local.arn}:ec2:${local.here}:security-group/*"
}

# Without WAF, Shield and Cognito, which no manifest here asks for.
resource "aws_iam_role_policy" "load_balancer_controller" {
  name = "balance"
  role = aws_iam_role.pod["load_balancer_controller"].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Look"
        Effect = "Allow"
        Action = [
          "acm:DescribeCertificate",
          "acm:ListCertificates",
          "ec2:DescribeAccountAttributes",
          "ec2:DescribeAddresses",
          "ec2:DescribeAvailabilityZones",
          "ec2:DescribeInstances",
          "ec2:DescribeInternetGateways",
          "ec2:DescribeNetworkInterfaces",
          "ec2:DescribeRouteTables",
          "ec2:DescribeSecurityGroups",
          "ec2:DescribeSubnets",
          "ec2:DescribeTags",
          "ec2:DescribeVpcPeeringConnections",
          "ec2:DescribeVpcs",
          "ec2:GetSecurityGroupsForVpc",
          "elasticloadbalancing:DescribeCapacityReservation",
          "elasticloadbalancing:DescribeListenerAttributes",
          "elasticloadbalancing:DescribeListenerCertificates",
          "elasticloadbalancing:DescribeListeners",
          "elasticloadbalancing:DescribeLoadBalancerAttributes",
          "elasticloadbalancing:DescribeLoadBalancers",
          "elasticloadbalancing:DescribeRules",
          "elasticloadbalancing:DescribeSSLPolicies",
          "elasticloadbalancing:DescribeTags",
          "elasticloadbalancing:DescribeTargetGroupAttributes",
          "elasticloadbalancing:DescribeTargetGroups",
          "elasticloadbalancing:DescribeTargetHealth",
          "elasticloadbalancing:DescribeTrustStores",
        ]
        Resource = "*"
      },
      {
        # Once in an account's life.
        Sid       = "FirstBalancerOfTheAccount"
        Effect    = "Allow"
        Action    = "iam:CreateServiceLinkedRole"
        Resource  = "${local.arn}:iam::${local.account}:role/aws-service-role/elasticloadbalancing.amazonaws.com/*"
        Condition = { StringEquals = { "iam:AWSServiceName" = "elasticloadbalancing.amazonaws.com" } }
      },
      {
        Sid       = "MakeSecurityGroups"
        Effect    = "Allow"
        Action    = "ec2:CreateSecurityGroup"
        Resource  = local.firewall
        Condition = { StringEquals = local.makes }
      },
      {
        Sid      = "InTheNetwork"
        Effect   = "Allow"
        Action   = "ec2:CreateSecurityGroup"
        Resource = aws_vpc.main.arn
      },
      {
        Sid       = "NameSecurityGroups"
        Effect    = "Allow"
        Action    = "ec2:CreateTags"
        Resource  = local.firewall
        Condition = { StringEquals = merge(local.makes, { "ec2:CreateAction" = "CreateSecurityGroup" }) }
      },
      {
        Sid       = "ChangeOwnSecurityGroups"
        Effect    = "Allow"
        Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:CreateTags", "ec2:DeleteSecurityGroup", "ec2:DeleteTags", "ec2:RevokeSecurityGroupIngress"]
        Resource  = local.firewall
        Condition = { StringEquals = local.made_here }
      },
      {
        # The balancer has to get in to the pods: a rule in the nodes' group, and in no other.
        Sid       = "LetTheBalancerIn"
        Effect    = "Allow"
        Action    = ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"]
        Resource  = local.firewall
        Condition = { StringEquals = { "aws:ResourceTag/kubernetes.io/cluster/${local.name}" = "owned" } }
      },
      {
        Sid       = "MakeBalancers"
        Effect    = "Allow"
        Action    = ["elasticloadbalancing:CreateLoadBalancer", "elasticloadbalancing:CreateTargetGroup"]
        Resource  = concat(local.balancers, [local.groups])
        Condition = { StringEquals = local.makes }
      },
      {
        Sid      = "NameBalancers"
        Effect   = "Allow"
        Action   = "elasticloadbalancing:AddTags"
        Resource = concat(local.balancers, [local.groups], local.listeners)
        Condition = {
          StringEquals = merge(local.makes, { "elasticloadbalancing:CreateAction" = ["CreateLoadBalancer", "CreateTargetGroup", "CreateListener", "CreateRule"] })
        }
      },
      {
        Sid    = "ChangeOwnBalancers"
        Effect = "Allow"
        Action = [
          "elasticloadbalancing:AddListenerCertificates",
          "elasticloadbalancing:AddTags",
          "elasticloadbalancing:CreateListener",
          "elasticloadbalancing:CreateRule",
          "elasticloadbalancing:DeleteListener",
          "elasticloadbalancing:DeleteLoadBalancer",
          "elasticloadbalancing:DeleteRule",
          "elasticloadbalancing:DeleteTargetGroup",
          "elasticloadbalancing:DeregisterTargets",
          "elasticloadbalancing:ModifyListener",
          "elasticloadbalancing:ModifyListenerAttributes",
          "elasticloadbalancing:ModifyLoadBalancerAttributes",
          "elasticloadbalancing:ModifyRule",
          "elasticloadbalancing:ModifyTargetGroup",
          "elasticloadbalancing:ModifyTargetGroupAttributes",
          "elasticloadbalancing:RegisterTargets",
          "elasticloadbalancing:RemoveListenerCertificates",
          "elasticloadbalancing:RemoveTags",
          "elasticloadbalancing:SetIpAddressType",
          "elasticloadbalancing:SetRulePriorities",
          "elasticloadbalancing:SetSecurityGroups",
          "elasticloadbalancing:SetSubnets",
        ]
        Resource  = concat(local.balancers, [local.groups], local.listeners)
        Condition = { StringEquals = local.made_here }
      },
    ]
  })
}

# Valid once its record is in the domain's DNS: the output certificate_record has it. Nothing here waits for that.
resource "aws_acm_certificate" "service" {
  count = var.domain == "" ? 0 : 1

  domain_name       = var.domain
  validation_method = "DNS"

  lifecycle {
    # A balancer that uses it does not let it go.
    create_before_destroy = true
  }
}
