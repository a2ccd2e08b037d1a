//! Compresses Swagger UI's script and style sheet once, out of the archive that a crate carries:
//! the build downloads nothing, and the binary holds two files instead of twenty.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // cargo does not know what the linker reads: scripts/build.sh tells it to.
    println!("cargo::rerun-if-changed=scripts/layout.ld");
    #[cfg(feature = "docs-ui")]
    if let Err(error) = swagger_ui() {
        println!("cargo::error=could not unpack Swagger UI: {error}");
    }
}

#[cfg(feature = "docs-ui")]
fn swagger_ui() -> Result<(), Box<dyn std::error::Error>> {
    use std::{fs::File, io, path::Path};

    const FILES: [&str; 2] = ["swagger-ui-bundle.js", "swagger-ui.css"];

    #[expect(clippy::disallowed_methods, reason = "cargo's own interface to build scripts")]
    let out = std::env::var("OUT_DIR")?;
    let archive = io::Cursor::new(utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED);
    let mut archive = zip::ZipArchive::new(archive)?;
    for wanted in FILES {
        let path = archive
            .file_names()
            .filter_map(Result::ok)
            .find(|path| path.ends_with(&format!("/dist/{wanted}")))
            .ok_or_else(|| format!("{wanted} is not in the archive"))?
            .into_owned();
        let mut file = archive.by_name(&path)?;
        let compressed = File::create(Path::new(&out).join(format!("{wanted}.gz")))?;
        let mut encoder = flate2::write::GzEncoder::new(compressed, flate2::Compression::best());
        io::copy(&mut file, &mut encoder)?;
        encoder.finish()?;
    }
    Ok(())
}
