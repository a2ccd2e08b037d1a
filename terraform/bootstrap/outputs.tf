output "bucket" {
  description = "The bucket of all states."
  value       = aws_s3_bucket.state.bucket
}

output "plan_role_arn" {
  description = "The role for GitHub's environments dev-plan and prod-plan, if github_repository is set."
  value       = one([for name, role in aws_iam_role.terraform : role.arn if name == "plan"])
}

output "apply_role_arn" {
  description = "The role for GitHub's environments dev-apply and prod-apply, if github_repository is set."
  value       = one([for name, role in aws_iam_role.terraform : role.arn if name == "apply"])
}
