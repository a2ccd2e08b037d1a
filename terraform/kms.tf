# One key for what only this environment reads: the cluster's secrets, logs, and the database with its password.

resource "aws_kms_key" "main" {
  description         = "Secrets of the cluster, logs and database of ${local.name}"
  enable_key_rotation = true
  # How long a deletion can be taken back.
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # IAM decides who may use it; without this nobody could ever again.
        Sid       = "Account"
        Effect    = "Allow"
        Principal = { AWS = "${local.arn}:iam::${local.account}:root" }
        Action    = "kms:*"
        Resource  = "*"
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${var.region}.amazonaws.com" }
        Action    = ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"]
        Resource  = "*"
        Condition = {
          ArnLike = {
            "kms:EncryptionContext:aws:logs:arn" = [
              "${local.arn}:logs:${local.here}:log-group:/${local.name}/*",
              "${local.arn}:logs:${local.here}:log-group:/aws/eks/${local.name}/*",
              "${local.arn}:logs:${local.here}:log-group:/aws/rds/instance/${local.name}/*",
            ]
          }
        }
      },
    ]
  })
}

resource "aws_kms_alias" "main" {
  name          = "alias/${local.name}"
  target_key_id = aws_kms_key.main.key_id
}
