//! The least that a receiver on the same HTTP library could do: read the body, check its HMAC; or say
//! that there is nothing at a path.

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures::StreamExt;
use hmac::{Hmac, KeyInit, Mac};

use super::server::KEY;

async fn check(request: HttpRequest, mut payload: web::Payload) -> HttpResponse {
    let mut body = web::BytesMut::new();
    while let Some(Ok(chunk)) = payload.next().await {
        body.extend_from_slice(&chunk);
    }
    let header = request.headers().get("X-Hub-Signature-256").and_then(|value| value.to_str().ok());
    let signature = header.and_then(|value| hex::decode(value.strip_prefix("sha256=")?).ok());
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(KEY.as_bytes()).expect("a key");
    mac.update(&body);
    match signature.is_some_and(|signature| mac.verify_slice(&signature).is_ok()) {
        true => HttpResponse::Accepted().finish(),
        false => HttpResponse::Unauthorized().finish(),
    }
}

/// Answers that there is nothing here, after the body.
async fn nothing(mut payload: web::Payload) -> HttpResponse {
    while payload.next().await.is_some() {}
    HttpResponse::NotFound().finish()
}

pub fn serve(port: &str) {
    let address = format!("127.0.0.1:{port}");
    let app = || {
        App::new()
            .route("/hook", web::post().to(check))
            .route("/nothing", web::post().to(nothing))
            .default_service(web::to(async || HttpResponse::NotFound().finish()))
    };
    let server = HttpServer::new(app).workers(1).bind(address).expect("a port").run();
    actix_web::rt::System::new().block_on(server).expect("a server");
}
