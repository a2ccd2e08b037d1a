//! What a caller may do.

/// A right. None contains another: who may write may not read unless that is granted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `jobs:read`: see jobs and namespaces.
    JobsRead,
    /// `jobs:write`: create and delete jobs.
    JobsWrite,
    /// `namespaces:write`: create and delete namespaces.
    NamespacesWrite,
    /// `audit:read`: see who changed what.
    AuditRead,
}

impl Scope {
    /// Every scope there is.
    pub const ALL: [Self; 4] = [Self::JobsRead, Self::JobsWrite, Self::NamespacesWrite, Self::AuditRead];

    /// The name in tokens, in the tokens file and in challenges.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::JobsRead => "jobs:read",
            Self::JobsWrite => "jobs:write",
            Self::NamespacesWrite => "namespaces:write",
            Self::AuditRead => "audit:read",
        }
    }

    /// The scope of that name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Whether it lets its holder change anything: such requests leave an audit line.
    #[must_use]
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::JobsRead | Self::AuditRead)
    }
}

/// A set of scopes: one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Those of the names that are scopes of ours. Issuers grant others as well (`openid`), for others.
    pub fn among<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().filter_map(Scope::named).collect()
    }

    /// Whether `scope` is one of them.
    #[must_use]
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | (1 << scope as u8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_scope_contains_another_and_foreign_names_grant_nothing() {
        for scope in Scope::ALL {
            let alone = Scopes::among([scope.name()]);
            assert_eq!(Scope::ALL.into_iter().filter(|other| alone.has(*other)).collect::<Vec<_>>(), [scope]);
        }
        for name in ["", "jobs", "jobs:*", "JOBS:READ", "jobs:read ", "openid", "math/jobs:read"] {
            assert_eq!(Scopes::among([name]), Scopes::default(), "{name}");
        }
        let all = Scopes::among(["openid", "jobs:write", "jobs:read", "audit:read", "namespaces:write"]);
        assert_eq!(all, Scope::ALL.into_iter().collect());
    }
}
