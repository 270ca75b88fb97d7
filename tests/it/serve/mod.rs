//! `serve`: the real binary, asked over HTTP.

mod access;
mod calls;
mod deploy;
mod hostile;

use crate::support::binary::{Binary, Output, Running};
use crate::support::content::Content;
use crate::support::eventually;
use crate::support::http::{Client, Response};
use serde_json::Value;
use std::time::Duration;

/// A server that runs, and how to ask it.
pub struct Served {
    pub running: Running,
    pub client: Client,
    pub address: String,
}

impl Served {
    /// Starts it on a free port, with these arguments more, and waits until it listens.
    pub fn start(binary: &Binary, arguments: &[&str]) -> Self {
        let own = ["serve", "--port", "0", "--no-metrics-port", "--shutdown-grace", "1s"];
        let own = &own[..4];
        let mut running = binary.spawn(&[own, arguments].concat());
        let address = eventually("the server's address", || {
            assert!(running.is_running(), "{}", running.stderr());
            let said = running.stderr();
            let line = said.lines().find_map(|line| line.split_once("serves ")?.1.split_once("://"))?;
            Some(line.1.split(' ').next()?.to_owned())
        });
        Self { running, client: Client::new(&address), address }
    }

    pub fn get(&self, path: &str) -> Response {
        self.client.get(path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.with(&[], path, body)
    }

    pub fn with(&self, headers: &[(&str, &str)], path: &str, body: &Value) -> Response {
        self.client.send("POST", path, headers, Some(&Content::Bytes(body.to_string().into_bytes().into())))
    }

    /// Ends it by a signal; it must end well.
    pub fn end(mut self) -> Output {
        self.running.sigterm();
        self.running.wait(Duration::from_secs(60)).success()
    }
}

/// A key made by the command line.
pub fn key(binary: &Binary, arguments: &[&str]) -> String {
    binary.run(&[&["keys", "add"], arguments].concat()).success().text().trim().to_owned()
}
