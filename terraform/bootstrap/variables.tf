variable "github_repository" {
  type        = string
  description = "GitHub repository (owner/name) whose workflows plan and apply. Empty: none."
  default     = ""

  validation {
    # No star and no question mark: IAM would be told a pattern.
    condition     = can(regex("^$|^[A-Za-z0-9][A-Za-z0-9-]{0,38}/[A-Za-z0-9._-]{1,100}$", var.github_repository))
    error_message = "github_repository is owner/name, without wildcards."
  }
}

variable "makes_github_provider" {
  type        = bool
  description = "Whether GitHub's identity provider is made here. False where the account has it already: it can have but one."
  default     = true
}
