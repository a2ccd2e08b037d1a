//! What is written against what is: README, OpenAPI document, corpus, architecture.

use std::{collections::BTreeSet, path::Path};

use math_service::config::SETTINGS;
use serde_json::Value;

use crate::support::{Server, request};

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readmes_table_of_settings_is_the_codes() {
    let readme = read("README.md");
    let rows: Vec<&str> = readme
        .lines()
        .skip_while(|line| *line != "| variable | default | meaning |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            let aliases = match setting.aliases {
                [] => String::new(),
                names => format!(
                    " (or {})",
                    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                ),
            };
            let default =
                if setting.default.is_empty() { "none".to_owned() } else { format!("`{}`", setting.default) };
            format!("| `{}`{aliases} | {default} | {} |", setting.name, setting.meaning)
        })
        .collect();
    assert_eq!(rows, expected, "the README's table should read:\n{}", expected.join("\n"));
}

#[test]
fn every_source_file_is_on_the_architecture_page() {
    let page = read("ARCHITECTURE.md");
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.file_name().unwrap().to_string_lossy();
                assert!(name == "mod.rs" || page.contains(&*name), "{} is missing", entry.display());
            }
        }
    }
}

#[tokio::test]
async fn the_openapi_document_names_every_route_and_method_and_nothing_else() {
    let server = Server::start(&[]).await;
    let document: Value = request("GET", "/openapi.json").send(server.address).await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    for (path, item) in document["paths"].as_object().unwrap() {
        let documented: BTreeSet<String> =
            item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        // The router itself says which methods a path takes.
        let refused = request("BREW", path).send(server.address).await;
        assert_eq!(refused.status, 405, "{path} is documented and does not exist");
        let allowed = refused.header("allow").split(',').filter(|method| *method != "HEAD");
        assert_eq!(documented, allowed.map(str::to_owned).collect(), "{path}");
    }
    for path in ["/", "/livez", "/healthz", "/readyz", "/health", "/metrics", "/openapi.json"] {
        assert!(!document["paths"][path].is_null(), "{path} is not documented");
    }
}

#[tokio::test]
async fn the_interactive_page_needs_nothing_from_elsewhere() {
    let server = Server::start(&[]).await;
    for page in ["/docs", "/docs/"] {
        let reply = request("GET", page).send(server.address).await;
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"));
        assert!(!reply.text().contains("http:") && !reply.text().contains("https:"), "{}", reply.text());
        let base = format!("http://{}{page}", server.address);
        for link in reply
            .text()
            .split(['"'])
            .filter(|part| part.ends_with(".js") || part.ends_with(".css") || part.ends_with(".json"))
        {
            let path = resolve(&base, link);
            let asset = request("GET", &path).header("accept-encoding", "gzip").send(server.address).await;
            assert_eq!(asset.status, 200, "{page} links to {link}, which is {path}");
        }
    }
}

/// A relative reference, resolved as a browser does (RFC 3986 §5.2).
pub(crate) fn resolve(base: &str, reference: &str) -> String {
    let path = base.splitn(4, '/').nth(3).unwrap_or_default();
    let mut segments: Vec<&str> = path.split('/').collect();
    segments.pop();
    for segment in reference.split('/') {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}
