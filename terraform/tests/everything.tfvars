# All that can be switched on, so that checkov looks at it.
environment         = "prod"
high_availability   = true
deletion_protection = true
log_retention_days  = 365
database            = true
domain              = "math.example.com"
github_repository   = "example/math-service"
cluster_admins      = ["arn:aws:iam::111122223333:role/admin"]
api_public_cidrs    = ["203.0.113.7/32"]
