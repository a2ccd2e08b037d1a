//! Answers that are still being made while they are sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

/// Whether nobody knows yet how long `body` will be. All but streams are complete before they are sent.
#[must_use]
pub fn is_stream(body: &Body) -> bool {
    body.size_hint().exact().is_none()
}

/// Keeps `guard` until `response` has been made: of a stream, as `keep` makes it last, until its body ends or nobody wants
/// it any more.
pub fn hold<T, G: Send + Unpin + 'static>(
    response: Response,
    guard: T,
    keep: impl FnOnce(T) -> G,
) -> Response {
    if is_stream(response.body()) {
        return response.map(|body| Body::new(Held { body, _guard: keep(guard) }));
    }
    response
}

struct Held<G> {
    body: Body,
    _guard: G,
}

impl<G: Unpin> hyper::body::Body for Held<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::identity, sync::Arc};

    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_guard_is_kept_for_as_long_as_a_stream_goes_on_and_no_longer() {
        let guard = Arc::new(());
        let complete = hold(Response::new(Body::from("all of it")), guard.clone(), identity);
        assert_eq!(Arc::strong_count(&guard), 1);
        assert_eq!(complete.into_body().collect().await.unwrap().to_bytes(), "all of it");
        let parts = futures_util::stream::iter(["a", "b"].map(Ok::<_, std::io::Error>));
        let mut stream = hold(Response::new(Body::from_stream(parts)), guard.clone(), identity).into_body();
        for part in ["a", "b"] {
            assert_eq!(stream.frame().await.unwrap().unwrap().into_data().unwrap(), part);
            assert_eq!(Arc::strong_count(&guard), 2);
        }
        drop(stream);
        assert_eq!(Arc::strong_count(&guard), 1);
    }
}
