//! Prints the OpenAPI document for `make openapi`, which commits it.
//!
//! Each value has its line, so that a change can be reviewed, but no indentation: it is served as it is.

use std::io::{self, Write};

use math_service::http::docs;
use serde::Serialize;
use serde_json::{Serializer, ser::PrettyFormatter};

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    docs::document()
        .serialize(&mut Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"")))?;
    writeln!(out)
}
