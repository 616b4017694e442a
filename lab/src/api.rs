//! The Kubernetes API by curl: the lab needs a dozen plain requests and no client library.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::paths::Paths;
use crate::run;
use crate::topology::api_url;

/// Talks to the API server, and to kubelets, as the administrator.
#[derive(Debug, Clone)]
pub struct Api {
    pki: PathBuf,
}

/// An answer of the API server.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Body, null when it is not JSON.
    pub body: Value,
}

impl Api {
    /// A client with the lab's administrator certificate.
    pub fn new(paths: &Paths) -> Self {
        Self { pki: paths.pki() }
    }

    fn curl(&self) -> Command {
        let mut command = run::sh("curl -sS --noproxy *");
        command.arg("--cacert").arg(self.pki.join("ca.crt"));
        command.arg("--cert").arg(self.pki.join("admin.crt"));
        command.arg("--key").arg(self.pki.join("admin.key"));
        command
    }

    /// One request; any HTTP status is an answer.
    pub fn request(&self, method: &str, path: &str, content_type: &str, body: Option<&Value>) -> Result<Answer> {
        let mut command = self.curl();
        command.args(["--max-time", "15", "-w", "\n%{http_code}", "-X", method]);
        command.args(["-H", &format!("Content-Type: {content_type}")]);
        let url = format!("{}{path}", api_url());
        let text = match body {
            Some(body) => run::output_with(command.args(["--data-binary", "@-", &url]), &serde_json::to_vec(body)?)?,
            None => run::output(command.arg(&url))?,
        };
        let (body, code) = text.rsplit_once('\n').context("curl printed no status")?;
        Ok(Answer { code: code.trim().parse()?, body: serde_json::from_str(body).unwrap_or(Value::Null) })
    }

    /// Reads an object or a list; `None` when there is no such thing.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        let answer = self.request("GET", path, "application/json", None)?;
        match answer.code {
            404 => Ok(None),
            _ => Ok(Some(answer.ok("GET", path)?)),
        }
    }

    /// Reads the items of a list.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        match self.get(path)?.map(|mut v| v["items"].take()) {
            Some(Value::Array(items)) => Ok(items),
            Some(Value::Null) | None => Ok(Vec::new()),
            Some(other) => bail!("the items of {path} are not a list: {other}"),
        }
    }

    /// Creates an object; false when it was there before.
    pub fn create(&self, path: &str, object: &Value) -> Result<bool> {
        let answer = self.request("POST", path, "application/json", Some(object))?;
        if answer.code == 409 {
            return Ok(false);
        }
        answer.ok("POST", path).map(|_| true)
    }

    /// Merges a patch into an object.
    pub fn merge(&self, path: &str, patch: &Value) -> Result<Value> {
        self.request("PATCH", path, "application/merge-patch+json", Some(patch))?.ok("PATCH", path)
    }

    /// Applies an object server-side.
    pub fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager=understudy-lab&force=true");
        self.request("PATCH", &path, "application/apply-patch+yaml", Some(object))?.ok("PATCH", &path)
    }

    /// Deletes an object; a missing one is fine.
    pub fn delete(&self, path: &str) -> Result<()> {
        let answer = self.request("DELETE", path, "application/json", None)?;
        if answer.code == 404 { Ok(()) } else { answer.ok("DELETE", path).map(|_| ()) }
    }

    /// Whether the API server says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.healthy(&format!("{}/readyz", api_url()))
    }

    /// Whether a health endpoint of the cluster answers 200 within two seconds.
    pub fn healthy(&self, url: &str) -> bool {
        run::succeeds(self.curl().args(["--max-time", "2", "--fail", "-o", "/dev/null", url]))
    }

    /// Calls `event` for each change of a list, until the server ends the watch (after some minutes).
    pub fn watch(&self, path: &str, mut event: impl FnMut()) -> Result<()> {
        let url = format!("{}{path}?watch=1&timeoutSeconds=300", api_url());
        let mut command = self.curl();
        command.args(["-N", "--fail", "--max-time", "330", &url]);
        let mut child = run::tied(&command).stdout(Stdio::piped()).spawn().context("cannot run `curl`")?;
        let mut reader = BufReader::new(child.stdout.take().expect("stdout was asked for"));
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            line.clear();
            event();
        }
        if !child.wait()?.success() {
            bail!("the watch of {path} broke off");
        }
        Ok(())
    }
}

impl Answer {
    fn ok(self, method: &str, path: &str) -> Result<Value> {
        if (200..300).contains(&self.code) {
            return Ok(self.body);
        }
        let message = self.body["message"].as_str().unwrap_or("no message");
        bail!("{method} {path}: HTTP {}: {message}", self.code)
    }
}

/// Asks `ready` every 100 ms until it says yes; `what` begins the message of a timeout.
pub fn wait(limit: Duration, what: &str, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        if ready()? {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("{what}: not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
