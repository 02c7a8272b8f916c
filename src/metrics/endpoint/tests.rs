// SPDX-License-Identifier: GPL-2.0-or-later
//! Questions over real sockets, sensible and other.

use std::io::{Read as _, Write as _};

use super::*;

struct Numbers;

impl Source for Numbers {
    fn text(&self) -> String {
        "tylo_ready 1\n".to_owned()
    }
}

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("tylo-metrics-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> Address {
        Address::Unix(self.0.join(name))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks while the endpoint serves, and says what came back until it hung up.
fn ask(endpoint: Endpoint, path: PathBuf, questions: &'static [&'static [u8]]) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let server = tokio::spawn(endpoint.serve(Arc::new(Numbers)));
        let asker = tokio::task::spawn_blocking(move || {
            let each = questions.iter().map(|question| {
                let mut stream = unix::UnixStream::connect(&path).unwrap();
                // It may hang up before it has read everything.
                let _ = stream.write_all(question);
                let _ = stream.shutdown(net::Shutdown::Write);
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                String::from_utf8_lossy(&answer).into_owned()
            });
            each.collect()
        });
        let answers = asker.await.unwrap();
        server.abort();
        answers
    })
}

#[test]
fn addresses_are_of_three_forms() {
    let parse = |text: &str| text.parse::<Address>();
    for text in ["127.0.0.1:9000", "[::1]:9000", "/run/tylo/metrics"] {
        assert_eq!(parse(text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "9000",
        ":9000",
        "localhost:9000",
        "::1:9000",
        "run/x",
        "1.2.3.4",
    ] {
        assert_eq!(parse(text), Err(NotAnAddress::Form), "{text}");
    }
    assert_eq!(parse("127.0.0.1:0"), Err(NotAnAddress::Port));
    let long = format!("/{}", "x".repeat(PATH_MAX));
    assert_eq!(parse(&long), Err(NotAnAddress::Path));
    assert!(parse(&long[1..].replacen('x', "/", 1)).is_ok());
}

#[test]
fn only_metrics_are_answered_and_nonsense_does_no_harm() {
    const LONG: &[u8] = &[b'a'; 100_000];
    let dir = Dir::new("ask");
    let endpoint = Endpoint::bind(&dir.at("socket")).unwrap();
    let answers = ask(
        endpoint,
        dir.0.join("socket"),
        &[
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"",
            b"\r\n\r\n\r\n",
            b"GET /metrics HTTP/9.9\r\n\r\n",
            b"GET\0/metrics HTTP/1.1\r\n\r\n",
            LONG,
            b"GET /metrics HTTP/1.1\r\nHost: ",
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            b"GET /metrics?a=b HTTP/1.1\r\nHost: x\r\n\r\n",
        ],
    );
    let starts = |answer: &String| answer.lines().next().unwrap_or_default().to_owned();
    let first: Vec<_> = answers.iter().map(starts).collect();
    for nonsense in &first[..7] {
        let fine = nonsense.is_empty() || nonsense.starts_with("HTTP/1.1 4");
        assert!(fine, "{first:?}");
    }
    assert_eq!(first[7], "HTTP/1.1 404 Not Found");
    assert_eq!(first[8], "HTTP/1.1 405 Method Not Allowed");
    assert!(answers[8].contains("allow: GET\r\n"), "{}", answers[8]);
    assert_eq!(first[9], "HTTP/1.1 200 OK");
    let (head, body) = answers[9].split_once("\r\n\r\n").unwrap();
    let kind = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    assert!(head.contains(kind), "{head}");
    assert_eq!(body, "tylo_ready 1\n");
}

#[test]
fn a_socket_is_public_and_goes_with_its_endpoint() {
    let dir = Dir::new("file");
    let address = dir.at("socket");
    let path = dir.0.join("socket");
    let endpoint = Endpoint::bind(&address).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    drop(endpoint);
    assert!(!path.exists());

    // One that a killed program left behind is replaced, a living one is not.
    drop(unix::UnixListener::bind(&path).unwrap());
    let endpoint = Endpoint::bind(&address).unwrap();
    let error = Endpoint::bind(&address).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    // Somebody else's is left where it is.
    fs::remove_file(&path).unwrap();
    let other = unix::UnixListener::bind(&path).unwrap();
    drop(endpoint);
    assert!(path.exists());
    drop(other);
}

#[test]
fn what_cannot_be_listened_at_is_told() {
    let dir = Dir::new("bind");
    fs::write(dir.0.join("file"), "precious").unwrap();
    let error = Endpoint::bind(&dir.at("file")).unwrap_err();
    assert!(matches!(error, BindError::NoSocket(_)), "{error}");
    assert_eq!(fs::read(dir.0.join("file")).unwrap(), b"precious");
    let error = Endpoint::bind(&dir.at("none/socket")).unwrap_err();
    assert!(matches!(error, BindError::System(..)), "{error}");

    let taken = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(taken.local_addr().unwrap());
    let error = Endpoint::bind(&address).unwrap_err();
    assert!(matches!(error, BindError::InUse(_)), "{error}");
    let foreign = Address::Tcp("192.0.2.77:9000".parse().unwrap());
    let error = Endpoint::bind(&foreign).unwrap_err();
    assert!(matches!(error, BindError::System(..)), "{error}");
}
