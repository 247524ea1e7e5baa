//! A fake Prometheus: every query gets the value set by the test.
//!
//! <https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

/// A server that answers like Prometheus.
pub(crate) struct Prometheus {
    address: SocketAddr,
    answers: Arc<Mutex<Answers>>,
}

/// The value to answer with, and the last query.
#[derive(Default)]
struct Answers {
    value: Option<u32>,
    asked: String,
}

impl Prometheus {
    /// Starts a server that answers with this value.
    pub(crate) fn saying(value: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::new(Mutex::new(Answers { value: Some(value), ..Answers::default() }));
        let known = Arc::clone(&answers);
        thread::spawn(move || {
            // A client may close the connection before the answer.
            listener.incoming().map_while(Result::ok).for_each(|asking| drop(answer(asking, &known)));
        });
        Self { address, answers }
    }

    /// Answers with another value from now on.
    pub(crate) fn says(&self, value: u32) {
        self.answers.lock().unwrap().value = Some(value);
    }

    /// Answers with an error from now on.
    pub(crate) fn fails(&self) {
        self.answers.lock().unwrap().value = None;
    }

    /// Returns the path of the last query.
    pub(crate) fn asked(&self) -> String {
        self.answers.lock().unwrap().asked.clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn answer(mut asking: TcpStream, answers: &Mutex<Answers>) -> std::io::Result<()> {
    let mut lines = BufReader::new(&asking).lines();
    let asked = lines.next().transpose()?.unwrap_or_default();
    for header in lines {
        if header?.is_empty() {
            break;
        }
    }
    let value = {
        let mut answers = answers.lock().unwrap();
        asked.split(' ').nth(1).unwrap_or_default().clone_into(&mut answers.asked);
        answers.value
    };
    let (status, body) = match value {
        Some(value) => ("200 OK", instant(value)),
        None => ("503 Service Unavailable", String::new()),
    };
    let head = "content-type: application/json\r\nconnection: close";
    write!(asking, "HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn instant(value: u32) -> String {
    let result = json!([{"metric": {}, "value": [1_700_000_000, value.to_string()]}]);
    json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string()
}
