//! The three wires of clients, and the form of an error on each.

use serde_json::{Value, json};

/// The API of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// OpenAI's API except `/v1/responses`.
    Chat,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// OpenAI's `/v1/responses`.
    Responses,
}

/// An error of the gateway itself, or one that it translates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiFailure {
    /// The HTTP status code.
    pub status: u16,
    pub message: String,
    /// The field of the request that is wrong.
    pub param: Option<&'static str>,
    /// The code of the error for programs.
    pub code: Option<&'static str>,
}

impl ApiFailure {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    #[must_use]
    pub fn with_param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

impl Wire {
    /// Returns the wire of a path.
    pub fn of_path(path: &str) -> Self {
        match path {
            "/v1/responses" => Self::Responses,
            _ if path == "/v1/messages" || path.starts_with("/v1/messages/") => Self::Messages,
            _ => Self::Chat,
        }
    }

    /// Returns the body of an error response.
    pub fn error_body(self, failure: &ApiFailure) -> String {
        match self {
            Self::Messages => anthropic(failure),
            Self::Chat | Self::Responses => json!({ "error": openai(failure) }),
        }
        .to_string()
    }

    /// Returns an error as the last event of a stream that has started.
    pub fn error_event(self, failure: &ApiFailure) -> String {
        match self {
            Self::Chat => format!("data: {}\n\n", self.error_body(failure)),
            Self::Messages => format!("event: error\ndata: {}\n\n", anthropic(failure)),
            Self::Responses => {
                let error = json!({
                    "type": "error", "code": failure.code.unwrap_or("server_error"), "message": failure.message,
                    "param": failure.param, "error": openai(failure),
                });
                format!("event: error\ndata: {error}\n\n")
            }
        }
    }
}

fn openai(failure: &ApiFailure) -> Value {
    let kind = match failure.status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "server_error",
    };
    json!({ "message": failure.message, "type": kind, "param": failure.param, "code": failure.code })
}

fn anthropic(failure: &ApiFailure) -> Value {
    let kind = match failure.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        504 => "timeout_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": failure.message } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_snapshot;

    #[test]
    fn errors_have_the_shape_of_their_wire() {
        let failure =
            ApiFailure::new(404, "there is no model `x`").with_param("model").with_code("model_not_found");
        assert_snapshot!(Wire::Chat.error_body(&failure), @r#"{"error":{"code":"model_not_found","message":"there is no model `x`","param":"model","type":"invalid_request_error"}}"#);
        assert_snapshot!(Wire::Messages.error_body(&failure), @r#"{"error":{"message":"there is no model `x`","type":"not_found_error"},"type":"error"}"#);
        let failure = ApiFailure::new(502, "mlx died");
        assert_snapshot!(Wire::Chat.error_event(&failure), @r#"data: {"error":{"code":null,"message":"mlx died","param":null,"type":"server_error"}}"#);
        assert_snapshot!(Wire::Messages.error_event(&failure), @r#"
        event: error
        data: {"error":{"message":"mlx died","type":"api_error"},"type":"error"}
        "#);
        assert_snapshot!(Wire::Responses.error_event(&failure), @r#"
        event: error
        data: {"code":"server_error","error":{"code":null,"message":"mlx died","param":null,"type":"server_error"},"message":"mlx died","param":null,"type":"error"}
        "#);
    }

    #[test]
    fn paths_have_their_wire() {
        assert_eq!(Wire::of_path("/v1/messages/count_tokens"), Wire::Messages);
        assert_eq!(Wire::of_path("/v1/responses"), Wire::Responses);
        assert_eq!(Wire::of_path("/v1/chat/completions"), Wire::Chat);
        assert_eq!(Wire::of_path("/v1/messagesx"), Wire::Chat);
    }
}
