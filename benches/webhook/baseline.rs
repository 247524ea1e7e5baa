//! The baseline: a webhook on the same server that only reads the uid and allows.

use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde::Deserialize;
use tidegate::certs::load_or_create;
use tidegate::server::{Limits, ServerCertificate, serve_tls};
use time::OffsetDateTime;
use tokio::net::TcpListener;

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
struct Request<'a> {
    uid: &'a str,
}

/// Serves until standard input ends.
pub(crate) async fn serve(address: SocketAddr, certs: &Path) -> anyhow::Result<()> {
    let certificates = load_or_create(certs, &[address.ip().to_string()], OffsetDateTime::now_utc())?;
    let listener = TcpListener::bind(address).await?;
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let router = Router::new().route("/mutate", post(allow));
    let certificate = ServerCertificate::new(&certificates)?;
    serve_tls(listener, router, certificate, Limits::default(), async { drop(ended.await) }).await;
    Ok(())
}

async fn allow(body: Bytes) -> Response {
    let Ok(review) = serde_json::from_slice::<Review>(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    let uid = review.request.uid;
    let answer = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{{"uid":"{uid}","allowed":true}}}}"#
    );
    ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
}
