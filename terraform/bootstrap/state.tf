data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

locals {
  # As in both backend.tf, which can hold no variable.
  region  = "eu-west-2"
  account = data.aws_caller_identity.current.account_id
  arn     = "arn:${data.aws_partition.current.partition}"
  # scripts/terraform-lib.sh knows it by the same rule. The number makes it unique in the world.
  bucket = "math-service-terraform-${local.account}"
}

resource "aws_s3_bucket" "state" {
  # checkov:skip=CKV_AWS_144:The state can be made again from what exists; a second region would not be asked before that.
  # checkov:skip=CKV_AWS_18:CloudTrail tells who read or wrote it; access logs would need another bucket, without logs.
  # checkov:skip=CKV_AWS_145:Encrypted with AWS's own key: with one of ours, a mistake in the key's policy would lock everybody out of what could mend it.
  # checkov:skip=CKV2_AWS_62:Nobody waits for an event of it.
  bucket = local.bucket
  # With it would go what Terraform knows of every environment: AWS deletes no bucket that holds something.
  force_destroy = false
}

# A state that was written by mistake is one version back.
resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket = aws_s3_bucket.state.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days           = 90
      newer_noncurrent_versions = 20
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  # Versions have to be there first.
  depends_on = [aws_s3_bucket_versioning.state]
}

# Over TLS only.
resource "aws_s3_bucket_policy" "state" {
  bucket = aws_s3_bucket.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.state]
}
