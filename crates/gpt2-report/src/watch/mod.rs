//! A page on the loopback address that follows a run.
//!
//! `/` is the page: it needs nothing from anywhere else, and asks `/metrics?after=STEP` for the newer steps. The run
//! directory need not be there yet, and the run may be stopped and resumed.

mod log;

use gpt2_base::units::grouped;
use log::Log;
use serde::Serialize;
use serde_json::value::RawValue;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tiny_http::{Header, Method, Request, Response, Server};

const PAGE: &str = include_str!("page.html");

/// How long a request to stop may go unnoticed.
const POLL: Duration = Duration::from_millis(100);

/// The page's script and styles stand in the page; nothing is loaded from anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves the page of the run in `run_dir` on the loopback address, until `stop` is set. A `port` of 0 is any that is
/// free. `on_listening` is called once, with the address.
///
/// # Errors
/// If the port cannot be had, or the system refuses connections.
pub fn serve(run_dir: &Path, port: u16, stop: &AtomicBool, on_listening: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| {
        let message = format!("cannot listen on 127.0.0.1:{port}: {error}; choose another port, or 0 for any");
        io::Error::new(error.kind(), message)
    })?;
    let address = listener.local_addr()?;
    let server = Server::from_listener(listener, None).map_err(io::Error::other)?;
    on_listening(address);
    let mut follower = Follower {
        run_dir,
        port: address.port(),
        log: Log::new(run_dir.join("metrics.jsonl")),
    };
    while !stop.load(Ordering::Relaxed) {
        if let Some(request) = server.recv_timeout(POLL)? {
            let answer = follower.answer(&request);
            // A reader that has gone needs no answer.
            let _ = request.respond(answer.into_response());
        }
    }
    Ok(())
}

struct Follower<'a> {
    run_dir: &'a Path,
    port: u16,
    log: Log,
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: &'static str,
    body: String,
}

/// What `/metrics` tells.
#[derive(Serialize)]
struct Metrics<'a> {
    /// The run directory's name.
    run: String,
    /// Of the lines. Where it is not the reader's, the reader must forget what it has.
    generation: u64,
    /// Lines of later steps than were asked for.
    records: Vec<&'a RawValue>,
    /// Whether the run has reached its end.
    complete: bool,
    /// How far the log is.
    state: String,
}

impl Follower<'_> {
    fn answer(&mut self, request: &Request) -> Answer {
        let host = request
            .headers()
            .iter()
            .find(|header| header.field.equiv("Host"))
            .map(|header| header.value.as_str());
        if !is_loopback(host, self.port) {
            return Answer::text(403, "this server answers requests to the loopback address only");
        }
        if *request.method() != Method::Get {
            return Answer::text(405, "GET only");
        }
        let (path, query) = request.url().split_once('?').unwrap_or((request.url(), ""));
        match path {
            "/" => Answer {
                status: 200,
                content_type: "text/html; charset=utf-8",
                body: PAGE.to_owned(),
            },
            "/metrics" => self.metrics(query),
            _ => Answer::text(404, "there are / and /metrics?after=STEP"),
        }
    }

    /// The steps after the one that is asked for, of the reader's generation; all steps, if it knows another.
    fn metrics(&mut self, query: &str) -> Answer {
        self.log.update();
        let value = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .filter(|(key, _)| *key == name)
                .map(|(_, value)| value)
                .next_back()
        };
        let is_known = value("generation").is_none_or(|text| text == self.log.generation().to_string());
        let after = match value("after").filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => match text.parse::<u64>() {
                Ok(after) => Some(after),
                Err(_) => return Answer::text(400, "`after` is no step, expected a whole number from 0"),
            },
        };
        let lines = self.log.after(after.filter(|_| is_known));
        let complete = self.run_dir.join("RUN_COMPLETE.txt").exists();
        let metrics = Metrics {
            run: name(self.run_dir),
            generation: self.log.generation(),
            records: lines
                .iter()
                .filter_map(|line| serde_json::from_str(&line.json).ok())
                .collect(),
            complete,
            state: match (self.log.error(), self.log.last_step()) {
                (Some(error), _) => error.to_owned(),
                (None, None) => "waiting for the first step".to_owned(),
                (None, Some(step)) if complete => format!("finished after step {}", grouped(step)),
                (None, Some(step)) => format!("step {}", grouped(step)),
            },
        };
        match serde_json::to_string(&metrics) {
            Ok(body) => Answer {
                status: 200,
                content_type: "application/json",
                body,
            },
            Err(error) => Answer::text(500, &error.to_string()),
        }
    }
}

/// Whether a request was meant for this server. A page of another site that has its name resolve to the loopback
/// address (DNS rebinding) sends that name.
fn is_loopback(host: Option<&str>, port: u16) -> bool {
    let Some((name, given)) = host.and_then(|host| host.rsplit_once(':')) else {
        // A browser leaves out the port of HTTP itself.
        return port == 80 && matches!(host, Some("127.0.0.1" | "localhost"));
    };
    matches!(name, "127.0.0.1" | "localhost") && given == port.to_string()
}

fn name(run_dir: &Path) -> String {
    let named = std::fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    named
        .file_name()
        .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Answer {
    fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: format!("{text}\n"),
        }
    }

    fn into_response(self) -> Response<io::Cursor<Vec<u8>>> {
        let headers = [
            ("Content-Type", self.content_type),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ];
        let mut response = Response::from_data(self.body).with_status_code(self.status);
        for (name, value) in headers {
            if let Ok(header) = Header::from_bytes(name, value) {
                response.add_header(header);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::fs::{self, OpenOptions};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread::{self, JoinHandle};
    use std::time::Instant;

    struct Running {
        address: SocketAddr,
        stop: Arc<AtomicBool>,
        server: Option<JoinHandle<io::Result<()>>>,
    }

    impl Running {
        fn start(run_dir: PathBuf) -> Self {
            let (send, receive) = channel();
            let stop = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&stop);
            let server = thread::spawn(move || serve(&run_dir, 0, &flag, |address| send.send(address).unwrap()));
            Self {
                address: receive.recv().unwrap(),
                stop,
                server: Some(server),
            }
        }

        fn stop(mut self) {
            self.stop.store(true, Ordering::Relaxed);
            self.server.take().unwrap().join().unwrap().unwrap();
        }

        /// Status and body.
        fn request(&self, head: &str) -> (u16, String) {
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            write!(stream, "{head}Connection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, body.to_owned())
        }

        fn get(&self, url: &str) -> (u16, String) {
            self.request(&format!("GET {url} HTTP/1.1\r\nHost: {}\r\n", self.address))
        }

        fn metrics(&self, query: &str) -> Value {
            let (status, body) = self.get(&format!("/metrics{query}"));
            assert_eq!(status, 200, "{body}");
            serde_json::from_str(&body).unwrap()
        }
    }

    fn steps(metrics: &Value) -> Vec<u64> {
        let records = metrics["records"].as_array().unwrap();
        records.iter().map(|record| record["step"].as_u64().unwrap()).collect()
    }

    fn line(step: u64) -> String {
        format!(
            "{{\"step\":{step},\"tokens\":{step},\"loss\":{}}}\n",
            9.0 - step as f64 / 10.0
        )
    }

    #[test]
    fn a_run_is_followed_while_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("first");
        let server = Running::start(run.clone());
        // Not even the directory is there.
        let empty = server.metrics("");
        assert_eq!(
            (steps(&empty), &empty["state"]),
            (vec![], &Value::from("waiting for the first step"))
        );
        assert_eq!(
            (&empty["run"], &empty["complete"]),
            (&Value::from("first"), &Value::from(false))
        );

        let writer = thread::spawn({
            let run = run.clone();
            move || {
                fs::create_dir(&run).unwrap();
                let mut log = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(run.join("metrics.jsonl"))
                    .unwrap();
                for step in 0..40_u64 {
                    // In two writes, so that a reader meets half-written lines.
                    let text = line(step);
                    let (a, b) = text.split_at(text.len() / 2);
                    log.write_all(a.as_bytes()).unwrap();
                    thread::sleep(Duration::from_millis(5));
                    log.write_all(b.as_bytes()).unwrap();
                }
                fs::write(run.join("RUN_COMPLETE.txt"), "").unwrap();
            }
        });
        let began = Instant::now();
        let mut seen = Vec::new();
        let mut looks = 0;
        while began.elapsed() < Duration::from_mins(1) {
            let after = seen.last().map_or_else(String::new, |step: &u64| step.to_string());
            let metrics = server.metrics(&format!("?after={after}&generation={}", empty["generation"]));
            seen.extend(steps(&metrics));
            looks += 1;
            if metrics["complete"] == true && seen.len() == 40 {
                break;
            }
        }
        writer.join().unwrap();
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
        assert!(looks > 1);
        assert_eq!(server.metrics("?after=39")["state"], "finished after step 39");
        server.stop();
    }

    #[test]
    fn a_resumed_run_is_told_by_its_generation() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("metrics.jsonl");
        fs::write(&log, (0..10).map(line).collect::<String>()).unwrap();
        let server = Running::start(dir.path().to_owned());
        let first = server.metrics("?after=5");
        assert_eq!(steps(&first), [6, 7, 8, 9]);
        fs::write(&log, (0..5).map(line).collect::<String>()).unwrap();
        let query = format!("?after=9&generation={}", first["generation"]);
        let second = server.metrics(&query);
        assert_eq!(steps(&second), [0, 1, 2, 3, 4]);
        assert_ne!(first["generation"], second["generation"]);
        let query = format!("?after=4&generation={}", second["generation"]);
        assert_eq!(steps(&server.metrics(&query)), Vec::<u64>::new());
        server.stop();
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(dir.path().to_owned());
        let (status, page) = server.get("/");
        assert_eq!((status, page.as_str()), (200, PAGE));
        // The name of SVG's elements is no address that is asked.
        let page = PAGE.replace("http://www.w3.org/2000/svg", "");
        for word in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(word), "{word}");
        }
        server.stop();
    }

    #[test]
    fn other_requests_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(dir.path().to_owned());
        let port = server.address.port();
        let as_host = |host: &str| server.request(&format!("GET /metrics HTTP/1.1\r\n{host}")).0;
        assert_eq!(as_host(&format!("Host: localhost:{port}\r\n")), 200);
        for host in [
            format!("Host: evil.example:{port}\r\n"),
            "Host: 127.0.0.1\r\n".to_owned(),
            "Host: 127.0.0.1:1\r\n".to_owned(),
            format!("Host: 127.0.0.1.evil.example:{port}\r\n"),
            String::new(),
        ] {
            assert_eq!(as_host(&host), 403, "{host}");
        }
        assert_eq!(server.get("/metrics.jsonl").0, 404);
        assert_eq!(server.get("/../plan.toml").0, 404);
        assert_eq!(server.get("/metrics?after=-1").0, 400);
        let post = format!("POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n");
        assert_eq!(server.request(&post).0, 405);
        server.stop();
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let server = Running::start(dir.path().to_owned());
        let port = server.address.port();
        let error = serve(dir.path(), port, &AtomicBool::new(true), |_| ()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")),
            "{text}"
        );
        assert!(text.ends_with("; choose another port, or 0 for any"), "{text}");
        server.stop();
    }
}
