//! Which store, out of `STATE_URL`: read once at the start, so that a mistake is told there.

use std::{fmt, path::PathBuf};

/// A store's address.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// A file on this machine's disk, for one machine alone.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(Server),
    /// A DynamoDB table.
    Dynamodb(Table),
}

/// A PostgreSQL server and how to trust it.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// What `tokio-postgres` understands of the URL; holds the password.
    pub url: String,
    /// Whether the connection is encrypted and the server's certificate and name are checked.
    pub is_verified: bool,
    /// A file of certificate authorities to trust in place of the public ones.
    pub root_certificates: Option<PathBuf>,
}

/// A DynamoDB table and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The table's name.
    pub name: String,
    /// The AWS region, where it is not the process's own.
    pub region: Option<String>,
    /// Another address to reach it at, for stand-ins and VPC endpoints.
    pub endpoint: Option<String>,
}

impl Location {
    /// Reads a URL.
    ///
    /// # Errors
    /// What would have been right.
    pub fn parse(url: &str) -> Result<Self, String> {
        let expected = || {
            "sqlite://path/to/file.db, postgres://user:password@host/database or dynamodb://table".to_owned()
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(expected)?;
        match scheme {
            "sqlite" if !rest.is_empty() && !rest.contains(['?', ':']) => Ok(Self::Sqlite(rest.into())),
            "postgres" | "postgresql" => server(url).map(Self::Postgres),
            "dynamodb" => table(rest).map(Self::Dynamodb),
            _ => Err(expected()),
        }
    }

    /// Whether it is this machine's own: wrong as soon as several of them answer.
    #[must_use]
    pub fn is_embedded(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// The store's kind, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => "sqlite",
            Self::Postgres(_) => "postgres",
            Self::Dynamodb(_) => "dynamodb",
        }
    }
}

/// The kind alone: the URL holds a password.
impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

fn server(url: &str) -> Result<Server, String> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut server = Server { url: address.to_owned(), is_verified: true, root_certificates: None };
    let mut passed_on = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, value) {
            // Every mode that encrypts also verifies here: less would look safe and not be.
            ("sslmode", "require" | "verify-ca" | "verify-full") => server.is_verified = true,
            ("sslmode", "disable") => server.is_verified = false,
            ("sslmode", _) => return Err("sslmode to be verify-full (the default) or disable".to_owned()),
            ("sslrootcert", file) => server.root_certificates = Some(decoded(file).into()),
            _ => passed_on.push(parameter),
        }
    }
    if !passed_on.is_empty() {
        server.url = format!("{address}?{}", passed_on.join("&"));
    }
    #[cfg(feature = "postgres")]
    if let Err(error) = server.url.parse::<tokio_postgres::Config>() {
        return Err(format!("a PostgreSQL URL such as postgres://user:password@host/database ({error})"));
    }
    Ok(server)
}

fn table(rest: &str) -> Result<Table, String> {
    let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
    // DynamoDB's own rule for names.
    let is_name = (3..=255).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let expected = "dynamodb://table, with ?region=… and &endpoint=… where they are not the process's own";
    if !is_name {
        return Err(expected.to_owned());
    }
    let mut table = Table { name: name.to_owned(), region: None, endpoint: None };
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("region", region)) => table.region = Some(region.to_owned()),
            Some(("endpoint", endpoint)) => table.endpoint = Some(decoded(endpoint)),
            _ => return Err(expected.to_owned()),
        }
    }
    Ok(table)
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_names_a_store() {
        let path = |url| match Location::parse(url) {
            Ok(Location::Sqlite(path)) => path.display().to_string(),
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(path("sqlite://data/state.db"), "data/state.db");
        assert_eq!(path("sqlite:///var/lib/state.db"), "/var/lib/state.db");
        let table = |url| match Location::parse(url) {
            Ok(Location::Dynamodb(table)) => table,
            other => panic!("{url}: {other:?}"),
        };
        assert_eq!(table("dynamodb://my-table").name, "my-table");
        let elsewhere = table("dynamodb://t_1?region=eu-west-2&endpoint=http%3A%2F%2Flocalhost%3A5000");
        assert_eq!(elsewhere.region.as_deref(), Some("eu-west-2"));
        assert_eq!(elsewhere.endpoint.as_deref(), Some("http://localhost:5000"));
    }

    #[test]
    fn postgres_is_verified_unless_that_is_switched_off() {
        let server = |query: &str| match Location::parse(&format!("postgres://u:p@h/d{query}")) {
            Ok(Location::Postgres(server)) => server,
            other => panic!("{query}: {other:?}"),
        };
        for query in ["", "?sslmode=require", "?sslmode=verify-full&connect_timeout=3"] {
            assert!(server(query).is_verified, "{query}");
        }
        assert!(!server("?sslmode=disable").is_verified);
        let rds = server("?connect_timeout=3&sslrootcert=/certs/rds%20global.pem");
        assert_eq!(rds.url, "postgres://u:p@h/d?connect_timeout=3");
        assert_eq!(rds.root_certificates, Some("/certs/rds global.pem".into()));
    }

    #[test]
    fn what_is_no_store_is_refused() {
        for url in [
            "",
            "state.db",
            "sqlite://",
            "sqlite://:memory:",
            "mysql://u:p@h/d",
            "postgres://u:p@h/d?sslmode=prefer",
            "postgres://u:p@h/d?colour=blue",
            "dynamodb://",
            "dynamodb://a b c",
            "dynamodb://table?zone=a",
        ] {
            assert!(Location::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let location = Location::parse("postgres://user:hunter2@host/db").unwrap();
        assert_eq!(format!("{location:?} {location}"), "postgres postgres");
    }
}
