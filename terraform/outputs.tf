# What the next command needs. README's "EKS with Terraform" uses each.

output "region" {
  description = "Where it is."
  value       = var.region
}

output "cluster_name" {
  description = "The cluster, for k8s/cluster-autoscaler.yaml and for helm."
  value       = aws_eks_cluster.main.name
}

output "kubectl_command" {
  description = "Makes kubectl talk to the cluster."
  value       = "aws eks update-kubeconfig --region ${var.region} --name ${aws_eks_cluster.main.name} --alias ${aws_eks_cluster.main.name}"
}

output "vpc_id" {
  description = "The network, for the AWS Load Balancer Controller."
  value       = aws_vpc.main.id
}

output "registry_url" {
  description = "Where the image is pushed to, without a tag."
  value       = local.repository_url
}

output "table_name" {
  description = "The DynamoDB table, for template.yaml's parameter TableName."
  value       = aws_dynamodb_table.state.name
}

output "state_url" {
  description = "STATE_URL of pods that keep the sequences in the table."
  value       = "dynamodb://${aws_dynamodb_table.state.name}?region=${var.region}"
}

output "database_host" {
  description = "The database, if there is one."
  value       = one(aws_db_instance.main[*].address)
}

output "database_name" {
  description = "The name of the database within it."
  value       = var.database ? local.database : null
}

output "database_secret" {
  description = "ARN of the secret with the administrator's name and password, which RDS makes and rotates."
  value       = one(aws_db_instance.main[*].master_user_secret[0].secret_arn)
}

output "build_role_arn" {
  description = "The role for GitHub's environment build, if github_repository is set where the repository of images is."
  value       = one(aws_iam_role.build[*].arn)
}

output "deploy_role_arn" {
  description = "The role for GitHub's environment of the same name, if github_repository is set."
  value       = one(aws_iam_role.deploy[*].arn)
}

output "cloudformation_role_arn" {
  description = "The role that sam deploy passes on (--role-arn), if github_repository is set."
  value       = one(aws_iam_role.cloudformation[*].arn)
}

output "function_boundary_arn" {
  description = "For template.yaml's parameter PermissionsBoundary, if github_repository is set."
  value       = one(aws_iam_policy.function_boundary[*].arn)
}

output "certificate_arn" {
  description = "For the annotation in k8s/components/alb/ingress.yaml, if domain is set."
  value       = one(aws_acm_certificate.service[*].arn)
}

output "certificate_record" {
  description = "The DNS record that proves that the domain is yours, if domain is set."
  value       = one(flatten([for certificate in aws_acm_certificate.service : [for option in certificate.domain_validation_options : "${option.resource_record_name} ${option.resource_record_type} ${option.resource_record_value}"]]))
}
