# Where each Fibonacci sequence stands, what became of Jobs, who changed what, and webhooks that wait. The pods use it
# through k8s/overlays/dynamodb, the function through template.yaml's parameter TableName. Costs nothing when idle; a step
# is one write.

resource "aws_dynamodb_table" "state" {
  # checkov:skip=CKV_AWS_119:It holds indices, hashes of session keys, what became of Jobs, who changed what and webhooks that wait, encrypted with AWS's own key; with ours every reader, the function too, would need rights to it, and each call might be charged.
  name         = "${local.name}-state"
  billing_mode = "PAY_PER_REQUEST"
  hash_key     = "id"

  attribute {
    name = "id"
    type = "S"
  }

  # History and audit in order. Sequences have neither attribute: a step costs what it did.
  attribute {
    name = "log"
    type = "S"
  }

  attribute {
    name = "position"
    type = "S"
  }

  global_secondary_index {
    name            = "records"
    hash_key        = "log"
    range_key       = "position"
    projection_type = "ALL"
  }

  # DynamoDB removes what has expired by itself.
  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  server_side_encryption {
    enabled = false
  }

  # Back to any second of the last 35 days.
  point_in_time_recovery {
    enabled = true
  }

  deletion_protection_enabled = var.deletion_protection
}
