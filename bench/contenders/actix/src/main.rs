//! actix-web, as its users write it.

use actix_web::{
    App, HttpServer, Responder,
    web::{self, Json},
};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Operands {
    a: f64,
    b: f64,
}

#[derive(Serialize)]
struct Sum {
    result: f64,
}

async fn add(Json(Operands { a, b }): Json<Operands>) -> impl Responder {
    Json(Sum { result: a + b })
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8000);
    HttpServer::new(|| App::new().route("/", web::post().to(add))).bind(("127.0.0.1", port))?.run().await
}
