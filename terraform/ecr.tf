resource "aws_ecr_repository" "service" {
  # checkov:skip=CKV_AWS_136:The image holds public code and no secret; encryption at rest is on, with AWS's own key.
  count = var.makes_repository ? 1 : 0

  name = local.repository
  # A tag is a commit: what was tried under it is what runs under it.
  image_tag_mutability = "IMMUTABLE"
  # A registry with images in it is not deleted by mistake.
  force_delete = false

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "AES256"
  }
}

resource "aws_ecr_lifecycle_policy" "service" {
  count = var.makes_repository ? 1 : 0

  repository = aws_ecr_repository.service[0].name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "What a push left behind without a tag goes after a week"
        selection = {
          tagStatus   = "untagged"
          countType   = "sinceImagePushed"
          countUnit   = "days"
          countNumber = 7
        }
        action = { type = "expire" }
      },
      {
        rulePriority = 2
        description  = "Enough to roll back to"
        selection = {
          tagStatus   = "any"
          countType   = "imageCountMoreThan"
          countNumber = 100
        }
        action = { type = "expire" }
      },
    ]
  })
}

locals {
  repository_arn = var.makes_repository ? one(aws_ecr_repository.service[*].arn) : one(data.aws_ecr_repository.service[*].arn)
  repository_url = var.makes_repository ? one(aws_ecr_repository.service[*].repository_url) : one(data.aws_ecr_repository.service[*].repository_url)
}
