//! Web pages: which may ask, what they are told, and the token.

use super::backend::Backend;
use super::http::{self, Message};
use super::stage::{Stage, settings};
use super::{CHAT, TINY};
use fusion::core::config::GatewaySettings;

const PAGE: &str = "http://app.example";

fn stage(change: impl FnOnce(&mut GatewaySettings)) -> (Backend, Stage) {
    let backend = Backend::running(|_, stream| {
        http::write(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAccess-Control-Allow-Origin: *\r\n\
             Access-Control-Allow-Credentials: true\r\nVary: Accept\r\n\r\n{}",
        );
    });
    let mut settings = settings();
    change(&mut settings);
    let stage = Stage::new(&backend, settings);
    (backend, stage)
}

fn request(stage: &Stage, line: &str, headers: &str, body: &str) -> Message {
    let length = body.len();
    let request =
        format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}");
    http::exchange(stage.port, &request)
}

fn values<'m>(message: &'m Message, name: &str) -> Vec<&'m str> {
    let named = message.headers.iter().filter(|(known, _)| known == name);
    named.map(|(_, value)| value.as_str()).collect()
}

#[test]
fn configured_page_gets_one_set_of_cors_headers() {
    let (_backend, stage) = stage(|settings| settings.cors_origins = vec![PAGE.to_owned()]);
    let origin = format!("Origin: {PAGE}\r\nSec-Fetch-Site: cross-site\r\n");
    let response = request(&stage, &format!("POST {CHAT}"), &origin, TINY);
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(values(&response, "access-control-allow-origin"), [PAGE]);
    assert_eq!(values(&response, "access-control-allow-credentials"), [""; 0]);
    // The admin API and the page are not for it.
    for path in ["/api/instances", "/metrics", "/", "/ws", "/api/events"] {
        assert_eq!(request(&stage, &format!("GET {path}"), &origin, "").status(), 403, "{path}");
    }
}

#[test]
fn options_allow_the_headers_of_official_clients() {
    let (backend, stage) = stage(|settings| {
        settings.cors_origins = vec![PAGE.to_owned()];
        settings.token = "secret".to_owned();
    });
    let asked = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-retry-count";
    let headers = format!(
        "Origin: {PAGE}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: {asked}\r\n"
    );
    for path in [CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/models", "/v1/audio/speech"] {
        let response = request(&stage, &format!("OPTIONS {path}"), &headers, "");
        assert_eq!(response.status(), 204, "{path}");
        assert_eq!(values(&response, "access-control-allow-headers"), [asked], "{path}");
        assert_eq!(values(&response, "access-control-allow-origin"), [PAGE], "{path}");
        let method = if path == "/v1/models" { "GET" } else { "POST" };
        assert!(values(&response, "access-control-allow-methods")[0].contains(method), "{path}");
    }
    let foreign = headers.replace(PAGE, "http://evil.example");
    assert_eq!(request(&stage, &format!("OPTIONS {CHAT}"), &foreign, "").status(), 403);
    assert_eq!(backend.requests(), []);
}

#[test]
fn rebound_host_is_refused_on_every_path() {
    let (backend, stage) = stage(|settings| settings.hosts = vec!["box.home".to_owned()]);
    let port = stage.port;
    let status = |path: &str, host: &str| {
        http::exchange(port, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
            .status()
    };
    let paths =
        ["/", "/health", "/metrics", "/v1/models", "/api/instances", "/api/events", "/ws", "/nothing", CHAT];
    for path in paths {
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "192.168.1.5", ""] {
            assert!(matches!(status(path, host), 400 | 403), "{path} {host:?}");
        }
    }
    for host in ["localhost", "fusion.localhost:9", "127.0.0.1", "[::1]", "BOX.home", "127.9.9.9"] {
        assert_eq!(status("/health", host), 200, "{host}");
    }
    assert_eq!(backend.requests(), []);
}

#[test]
fn token_is_needed_on_loopback_too() {
    let (_backend, stage) = stage(|settings| settings.token = "secret".to_owned());
    let paths =
        ["/v1/models", "/api/instances", "/api/events", "/metrics", "/ws", "/nothing", "/v1/models/tiny"];
    for path in paths {
        for header in
            ["", "Authorization: Bearer wrong\r\n", "x-api-key: \r\n", "Authorization: Basic secret\r\n"]
        {
            let response = request(&stage, &format!("GET {path}"), header, "");
            assert_eq!(response.status(), 401, "{path} {header}");
            assert_eq!(response.json()["error"]["type"], "authentication_error");
        }
        assert_eq!(request(&stage, &format!("GET {path}?token=secret"), "", "").status(), 401, "{path}");
    }
    for path in ["/", "/health", "/api/health"] {
        assert_eq!(request(&stage, &format!("GET {path}"), "", "").status(), 200, "{path}");
    }
    for header in
        ["Authorization: Bearer secret\r\n", "authorization: bearer secret\r\n", "x-api-key: secret\r\n"]
    {
        assert_eq!(request(&stage, &format!("POST {CHAT}"), header, TINY).status(), 200, "{header}");
    }
}

#[test]
fn our_key_is_not_forwarded() {
    let (backend, stage) = stage(|settings| settings.token = "secret".to_owned());
    let headers = "Authorization: Bearer secret\r\nx-api-key: secret\r\nCookie: key=secret\r\n";
    for path in [CHAT, "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/audio/speech"] {
        assert_eq!(request(&stage, &format!("POST {path}"), headers, TINY).status(), 200, "{path}");
    }
    assert_eq!(backend.requests().len(), 5);
    for sent in backend.requests() {
        assert!(!sent.headers.iter().any(|(_, value)| value.contains("secret")), "{sent:?}");
    }
}

#[test]
fn template_is_taken_with_a_token_only() {
    let body = r#"{"name":"notes","start_command":"/bin/notes --port {port}","port_range":[9000,9009],"category":"text"}"#;
    let (backend, open) = stage(|_| {});
    let write = |stage: &Stage, gateway: &str| {
        let port = backend.port;
        let text = format!(
            "[ollama_server]\nport = {port}\n[mlx_server]\nport = 1\n[llama_server]\nport = 2\n{gateway}"
        );
        std::fs::write(stage.directory.path().join("config.toml"), text).expect("its own directory");
    };
    write(&open, "");
    let refused = request(&open, "POST /api/templates", "", body);
    assert_eq!(refused.status(), 403, "{}", refused.text());
    assert!(refused.text().contains("`start_command` is a part of a command line"), "{}", refused.text());
    let (_backend, stage) = stage(|settings| settings.token = "secret".to_owned());
    write(&stage, "[gateway]\ntoken = \"secret\"\n");
    let token = "x-api-key: secret\r\n";
    let post = |body: &str| request(&stage, "POST /api/templates", token, body);
    let created = post(body);
    assert_eq!(created.status(), 201, "{}", created.text());
    assert_eq!(created.header("location"), Some("/api/templates/notes"));
    assert_eq!(
        (&created.json()["name"], &created.json()["port_range"]),
        (&"notes".into(), &serde_json::json!([9000, 9009]))
    );
    assert_eq!((post(body).status(), post(&body.replace("notes\"", "mlx\"")).status()), (409, 409));
    for bad in [
        "",
        "[]",
        "{}",
        "{\"name\":7}",
        "{\"name\":\"a\"}",
        "{\"name\":\"a\",\"start_command\":7}",
        "{\"name\":\"a\",\"start_command\":\"x {prot}\"}",
        "{\"name\":\"a\",\"start_command\":\"x\",\"unknown\":1}",
        "{\"name\":\"\",\"start_command\":\"x\"}",
    ] {
        let response = post(bad);
        assert_eq!(response.status(), 400, "{bad}: {}", response.text());
    }
    let wrong = request(&stage, "DELETE /api/templates", token, "");
    assert_eq!((wrong.status(), wrong.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
}

#[test]
fn every_method_and_path_is_guarded() {
    let (backend, stage) = stage(|settings| settings.token = "secret".to_owned());
    let paths = [
        "/",
        "/health",
        CHAT,
        "/v1/models",
        "/api/instances",
        "/api/instances/ollama/start",
        "/ws",
        "/nothing",
    ];
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "SPY"] {
        for path in paths {
            let status = |headers: &str| {
                let mut client = http::connect(stage.port);
                let request = format!(
                    "{method} {path} HTTP/1.1\r\n{headers}\r\nx-api-key: secret\r\nContent-Length: 0\r\n\r\n"
                );
                http::write(&mut client, &request);
                let mut first = [0; 12];
                std::io::Read::read_exact(&mut client, &mut first).expect("a response");
                String::from_utf8_lossy(&first[9..]).into_owned()
            };
            for headers in [
                "Host: evil.example",
                "Host: localhost\r\nOrigin: http://evil.example",
                "Host: localhost\r\nSec-Fetch-Site: cross-site",
            ] {
                assert_eq!(status(headers), "403", "{method} {path} {headers}");
            }
            assert_ne!(status("Host: localhost"), "403", "{method} {path}");
        }
    }
    assert_eq!((backend.requests(), stage.driver.starts()), (vec![], 0));
}

/// The host is checked before the origin, and that before the fetch site.
#[test]
fn first_fault_is_told() {
    let (_backend, stage) = stage(|_| {});
    let told = |headers: &str| {
        let request = format!("GET /v1/models HTTP/1.1\r\n{headers}\r\n\r\n");
        http::exchange(stage.port, &request).json()["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (origin, site) = ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site");
    assert!(
        told(&format!("{site}\r\n{origin}\r\nHost: evil.example")).starts_with("the host `evil.example`")
    );
    assert!(told(&format!("{site}\r\n{origin}\r\nHost: localhost")).starts_with("the web page `http://evil"));
    assert!(told(&format!("{site}\r\nHost: localhost")).starts_with("a request from another web page"));
}

#[test]
fn websocket_carries_its_token_as_a_subprotocol() {
    let (_backend, stage) = stage(|settings| settings.token = "s3cret/ü".to_owned());
    let open = |path: &str, protocols: &str| {
        let headers = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{protocols}"
        );
        let mut client = http::connect(stage.port);
        http::write(&mut client, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            std::io::Read::read_exact(&mut client, &mut byte).expect("a head");
            head.push(byte[0]);
        }
        String::from_utf8_lossy(&head).to_lowercase()
    };
    let token = |text: &str| {
        use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
        format!("Sec-WebSocket-Protocol: fusion, token.{}\r\n", BASE64_URL_SAFE_NO_PAD.encode(text))
    };
    let opened = open("/ws", &token("s3cret/ü"));
    assert!(opened.starts_with("http/1.1 101 "), "{opened}");
    assert!(opened.contains("sec-websocket-protocol: fusion\r\n") && !opened.contains("token."), "{opened}");
    for (path, protocols) in [
        ("/ws", token("other")),
        ("/ws", "Sec-WebSocket-Protocol: fusion\r\n".to_owned()),
        ("/ws?token=s3cret/%c3%bc", String::new()),
    ] {
        assert!(open(path, &protocols).starts_with("http/1.1 401 "), "{path} {protocols}");
    }
}
