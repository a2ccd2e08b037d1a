variable "environment" {
  type        = string
  description = "Which environment this is. Every name begins with math-service- and this."

  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "The environment is dev or prod."
  }
}

variable "region" {
  type        = string
  description = "The AWS region of everything but the state's bucket."
  default     = "eu-west-2"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region is written like eu-west-2."
  }
}

variable "vpc_cidr" {
  type        = string
  description = "Addresses of the network, /16 to /20. Three quarters of them are for nodes and pods."
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(cidrsubnet(var.vpc_cidr, 0, 0) == var.vpc_cidr, false)
    error_message = "vpc_cidr is the first address of an IPv4 block and its length, like 10.0.0.0/16."
  }

  validation {
    condition     = try(tonumber(split("/", var.vpc_cidr)[1]) >= 16 && tonumber(split("/", var.vpc_cidr)[1]) <= 20, false)
    error_message = "vpc_cidr is a /16 (the largest that AWS allows) to a /20 (smaller ones run out of addresses for pods)."
  }

  validation {
    # The NetworkPolicy of k8s/overlays/postgres knows these.
    condition     = can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.vpc_cidr))
    error_message = "vpc_cidr is of a private block: 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16."
  }
}

variable "high_availability" {
  type        = bool
  description = "Whether a NAT gateway and endpoints in every zone, and a standby of the database, outlive a zone. It costs about 130 $ a month more."
  default     = false
}

variable "deletion_protection" {
  type        = bool
  description = "Whether AWS refuses to delete the cluster, the table and the database."
  default     = false
}

variable "log_retention_days" {
  type        = number
  description = "How many days CloudWatch keeps the control plane's logs and the network's flow logs."
  default     = 14

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "CloudWatch keeps logs for 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653 days, and never for ever here."
  }
}

variable "api_public_cidrs" {
  type        = list(string)
  description = "IPv4 blocks that may reach the cluster's API from the internet. Empty: only the network itself reaches it. 0.0.0.0/0 has to be asked for by name; IAM still decides who gets in."
  default     = []

  validation {
    condition     = alltrue([for block in var.api_public_cidrs : can(cidrnetmask(block))])
    error_message = "Each of api_public_cidrs is an IPv4 block like 203.0.113.7/32."
  }
}

variable "cluster_admins" {
  type        = list(string)
  description = "ARNs of the IAM roles or users that administer the cluster, besides whoever creates it."
  default     = []

  validation {
    condition     = alltrue([for arn in var.cluster_admins : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:(role|user)/.+$", arn))])
    error_message = "Each of cluster_admins is the ARN of an IAM role or user, like arn:aws:iam::111122223333:role/admin; not of a session (sts, assumed-role)."
  }
}

variable "kubernetes_version" {
  type        = string
  description = "Minor version of Kubernetes, as in cluster-config.yaml."
  default     = "1.35"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "kubernetes_version is a minor version, like 1.35."
  }
}

variable "node_instance_type" {
  type        = string
  description = "Instance type of the nodes; amd64, as the image is."
  default     = "t3.large"

  validation {
    # The digit of a Graviton family is followed by a g: t4g, m7g, c7gn.
    condition     = can(regex("^[a-z]+[0-9][a-z-]*\\.[0-9a-z]+$", var.node_instance_type)) && !can(regex("^[a-z]+[0-9]g", var.node_instance_type))
    error_message = "node_instance_type is one like t3.large, of an Intel or AMD family: the nodes' system is for amd64."
  }
}

variable "node_volume_gib" {
  type        = number
  description = "Size of a node's disk in GiB."
  default     = 20

  validation {
    condition     = var.node_volume_gib >= 20 && var.node_volume_gib <= 1000 && floor(var.node_volume_gib) == var.node_volume_gib
    error_message = "node_volume_gib is a whole number from 20 (the system's image needs it) to 1000."
  }
}

variable "nodes" {
  type = object({
    min     = number
    desired = number
    max     = number
  })
  description = "How many nodes there are at least, at first, and at most. cluster-autoscaler moves between the first and the last."
  default     = { min = 2, desired = 2, max = 3 }

  validation {
    condition     = 0 <= var.nodes.min && var.nodes.min <= var.nodes.desired && var.nodes.desired <= var.nodes.max && var.nodes.max >= 1
    error_message = "nodes.min is at most nodes.desired, and that at most nodes.max, which is at least 1."
  }
}

variable "makes_repository" {
  type        = bool
  description = "Whether the registry's repository is this environment's. Of those that share an account, one makes it and the others use it."
  default     = true
}

variable "database" {
  type        = bool
  description = "Whether there is a PostgreSQL database. The sequences need either it or the DynamoDB table, which costs nothing when idle."
  default     = false
}

variable "database_instance_class" {
  type        = string
  description = "Instance class of the database. k8s/overlays/postgres is sized for the smallest."
  default     = "db.t4g.micro"

  validation {
    condition     = can(regex("^db\\.[a-z]+[0-9][a-z]*\\.[0-9a-z]+$", var.database_instance_class))
    error_message = "database_instance_class is one like db.t4g.micro."
  }
}

variable "jobs" {
  type        = bool
  description = "Whether the service's pods may manage Jobs on the cluster, as k8s/overlays/jobs lets them."
  default     = false
}

variable "domain" {
  type        = string
  description = "Name that k8s/overlays/alb answers to over HTTPS. Empty: no certificate is asked for."
  default     = ""

  validation {
    condition     = can(regex("^$|^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain is a name like math.example.com, in lower case, without a scheme and without a dot at its end."
  }
}

variable "github_repository" {
  type        = string
  description = "GitHub repository (owner/name) whose workflows may deploy, in its environment of the same name as this one, and push images, in its environment build. Empty: none."
  default     = ""

  validation {
    # No star and no question mark: IAM would be told a pattern.
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$", var.github_repository))
    error_message = "github_repository is owner/name, without wildcards."
  }
}
