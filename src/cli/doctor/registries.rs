//! Registries: is there one, and does it let us in.

use super::Check;
use crate::cli::Context;
use crate::oci::Repository;
use std::time::Duration;

/// Time for one registry: a person is waiting.
const LOOK_DEADLINE: Duration = Duration::from_secs(15);

/// Asks each registry for something small. Any answer shows that it can be reached.
pub async fn check(context: &Context, names: &[String], verify_tls: Option<bool>) -> Vec<Check> {
    let session = match context.session(verify_tls) {
        Ok(session) => session,
        Err(error) => return vec![Check::fail("registries", error.message, "see --ca-file")],
    };
    let mut checks = Vec::with_capacity(names.len());
    for typed in names {
        let title = format!("registry {typed}");
        let Some(host) = host(typed) else {
            checks.push(Check::fail(&title, "it is no registry", "write HOST or HOST:PORT"));
            continue;
        };
        let answer = tokio::time::timeout(LOOK_DEADLINE, session.list_repositories(&host, None)).await;
        checks.push(match answer {
            Err(_) => Check::fail(
                &title,
                format!("no answer within {} s", LOOK_DEADLINE.as_secs()),
                "check name, port and firewall",
            ),
            Ok(Ok(_)) => Check::ok(&title, "it answers"),
            Ok(Err(error)) => match error.status() {
                Some(401 | 403) => Check::ok(&title, "it answers; it lists no repositories for us, which many do not"),
                Some(status) if status < 500 => {
                    Check::ok(&title, format!("it answers ({status} to listing repositories)"))
                }
                Some(status) => Check::warn(&title, format!("it answers {status}"), "try again later"),
                None => Check::fail(&title, error.to_string(), "check name, port, firewall and certificates"),
            },
        });
    }
    checks
}

/// The registry that is meant: a host alone, or that of a repository.
fn host(typed: &str) -> Option<String> {
    let text = typed.trim().trim_start_matches("docker://").trim_start_matches("https://").trim_end_matches('/');
    let text = if text.contains('/') { text.to_owned() } else { format!("{text}/x") };
    let repository = Repository::parse(&text).ok()?;
    Some(repository.host().to_owned())
}
