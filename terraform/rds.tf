# PostgreSQL for the sequences, instead of the table: `database = true`. Only the nodes reach it, over TLS.
#
# The administrator's password is made and rotated by RDS and kept in Secrets Manager; nobody types it. The service has a
# user of its own, whose password does not change behind its back: `make terraform-database` makes both the user and the
# Secret that k8s/overlays/postgres reads.

resource "aws_db_subnet_group" "main" {
  count = var.database ? 1 : 0

  name        = local.name
  description = "Private subnets of ${local.name}"
  subnet_ids  = [for subnet in aws_subnet.private : subnet.id]
}

resource "aws_security_group" "database" {
  count = var.database ? 1 : 0

  name        = "${local.name}-database"
  description = "PostgreSQL, from the nodes of the cluster only"
  vpc_id      = aws_vpc.main.id

  tags = { Name = "${local.name}-database" }
}

resource "aws_vpc_security_group_ingress_rule" "database" {
  count = var.database ? 1 : 0

  security_group_id = aws_security_group.database[0].id
  description       = "PostgreSQL from the nodes"
  # The group that EKS gives to its nodes, and so to their pods.
  referenced_security_group_id = aws_eks_cluster.main.vpc_config[0].cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}

resource "aws_db_parameter_group" "main" {
  count = var.database ? 1 : 0

  name        = "${local.name}-postgres17"
  family      = "postgres17"
  description = "TLS only, and what was changed or took long in the log"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    # Milliseconds: half of what the service waits for a store.
    name  = "log_min_duration_statement"
    value = "1000"
  }
}

resource "aws_db_instance" "main" {
  # checkov:skip=CKV_AWS_161:The service signs in with a password in a Secret: tokens of IAM would have to be renewed every 15 minutes in every pod.
  # checkov:skip=CKV_AWS_118:Minute figures and Performance Insights are enough for one table; Enhanced Monitoring needs another role.
  count = var.database ? 1 : 0

  identifier     = local.name
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.database_instance_class

  db_name                       = local.database
  username                      = "administrator"
  manage_master_user_password   = true
  master_user_secret_kms_key_id = aws_kms_key.main.key_id

  storage_type      = "gp3"
  allocated_storage = 20
  # It grows by itself up to here.
  max_allocated_storage = 100
  storage_encrypted     = true
  kms_key_id            = aws_kms_key.main.arn

  publicly_accessible    = false
  db_subnet_group_name   = aws_db_subnet_group.main[0].name
  vpc_security_group_ids = [aws_security_group.database[0].id]
  parameter_group_name   = aws_db_parameter_group.main[0].name
  # Its authority is in the bundle that k8s/overlays/postgres mounts.
  ca_cert_identifier = "rds-ca-rsa2048-g1"

  multi_az                = var.high_availability
  backup_retention_period = 7
  copy_tags_to_snapshot   = true
  deletion_protection     = var.deletion_protection
  # What is protected leaves a last snapshot when it goes after all.
  skip_final_snapshot       = !var.deletion_protection
  final_snapshot_identifier = var.deletion_protection ? "${local.name}-final" : null

  auto_minor_version_upgrade      = true
  enabled_cloudwatch_logs_exports = ["postgresql", "upgrade"]
  performance_insights_enabled    = true
  performance_insights_kms_key_id = aws_kms_key.main.arn

  depends_on = [aws_cloudwatch_log_group.database]
}

resource "aws_cloudwatch_log_group" "database" {
  # checkov:skip=CKV_AWS_338:How long is config/'s business: a year in production, two weeks where nobody will ask later.
  for_each = toset(var.database ? ["postgresql", "upgrade"] : [])

  name              = "/aws/rds/instance/${local.name}/${each.key}"
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.main.arn
}
