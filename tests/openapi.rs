//! Prints the OpenAPI document for `make openapi`, which commits it.
//!
//! Each value has its line, so that a change can be reviewed, but no indentation: it is served as it is.

use std::io;

use math_service::http::docs;
use serde::Serialize;
use serde_json::{Serializer, ser::PrettyFormatter};

fn main() -> serde_json::Result<()> {
    let mut serializer = Serializer::with_formatter(io::stdout().lock(), PrettyFormatter::with_indent(b""));
    docs::document().serialize(&mut serializer)
}
