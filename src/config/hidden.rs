//! Secrets that were typed or stood in the environment, taken out of sight.
//!
//! What a process was started with can be read by others as long as it runs (`/proc/PID/cmdline`, `/proc/PID/environ`), and
//! overwriting it would need `unsafe`; a variable stays readable there after it was removed. So the program starts itself once
//! more, under the same process id, without them: the secrets go through a file in memory that has no name, and is emptied
//! as soon as it was read. This happens before anything else, so nothing has to be undone.
//!
//! Files (`--api-key-file`, `--password-stdin`, `pgpass`) need none of this, and are the better way.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::OnceLock;
use zeroize::Zeroizing;

/// Names the descriptor of the file in memory, in the environment of the second start.
const DESCRIPTOR: &str = "FREIGHTLINER_HIDDEN_FD";
/// What stands in the arguments instead of a secret, before its number.
const MARK: &str = "hidden-";
/// Options whose value is a secret.
const OPTIONS: [&str; 2] = ["--api-key", "--password"];
/// Variables whose value is a secret.
const VARIABLES: [&str; 2] = ["FREIGHTLINER_API_KEY", "REGISTRY_PASSWORD"];
/// The variable, and the option, whose value may hold one.
const DATABASE: (&str, &str) = ("FREIGHTLINER_DATABASE_URL", "--database");
/// Most bytes of secrets.
const LIMIT: u64 = 1024 * 1024;

/// A secret that was typed. Never printed, and wiped from memory when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// That of a variable.
    #[must_use]
    pub fn of_variable(environment: super::Environment<'_>, name: &str) -> Option<Self> {
        let value = environment(name)?.into_string().ok()?;
        Some(Self(Zeroizing::new(value)))
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// The variables that were taken out of sight.
static VARIABLES_TAKEN: OnceLock<BTreeMap<String, OsString>> = OnceLock::new();

/// A variable that was taken out of sight.
pub(super) fn variable(name: &str) -> Option<OsString> {
    VARIABLES_TAKEN.get()?.get(name).cloned()
}

/// A URL with a password.
fn has_password(url: &OsStr) -> bool {
    let Some(url) = url.to_str().filter(|url| url.starts_with("postgres")) else { return false };
    let in_place = url.split_once("://").and_then(|(_, rest)| {
        let authority = rest.split(['/', '?']).next()?;
        Some(authority.rsplit_once('@')?.0.contains(':'))
    });
    in_place == Some(true) || url.contains("password=")
}

/// Arguments without secrets, and the secrets in the order of their numbers.
fn split(arguments: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let is_login = arguments.iter().skip(1).any(|word| word == "login");
    let (mut shown, mut secrets) = (Vec::with_capacity(arguments.len()), Vec::new());
    let mut words = arguments.iter();
    let mark = |secrets: &mut Vec<OsString>, secret: &OsStr| {
        secrets.push(secret.to_owned());
        OsString::from(format!("{MARK}{}", secrets.len() - 1))
    };
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        let (name, attached) = match bytes.iter().position(|byte| *byte == b'=').filter(|_| bytes.starts_with(b"--")) {
            Some(at) => (OsStr::from_bytes(&bytes[..at]), Some(OsStr::from_bytes(&bytes[at + 1..]))),
            None if is_login && bytes.starts_with(b"-p") && bytes.len() > 2 => {
                (OsStr::from_bytes(&bytes[..2]), Some(OsStr::from_bytes(&bytes[2..])))
            }
            None => (word.as_os_str(), None),
        };
        let is_secret = OPTIONS.iter().any(|option| name == *option) || is_login && name == "-p";
        let holds_secret = |value: &OsStr| is_secret || name == DATABASE.1 && has_password(value);
        match attached {
            Some(value) if holds_secret(value) => {
                let mut word = name.to_owned();
                word.push(if name == "-p" { "" } else { "=" });
                word.push(mark(&mut secrets, value));
                shown.push(word);
            }
            Some(_) => shown.push(word.clone()),
            None if is_secret || name == DATABASE.1 => {
                shown.push(word.clone());
                if let Some(value) = words.next() {
                    let value = if holds_secret(value) { mark(&mut secrets, value) } else { value.clone() };
                    shown.push(value);
                }
            }
            None => shown.push(word.clone()),
        }
    }
    (shown, secrets)
}

/// The other way round.
fn join(shown: Vec<OsString>, secrets: &[OsString]) -> Vec<OsString> {
    let back = |word: OsString| {
        let bytes = word.as_bytes();
        for (number, secret) in secrets.iter().enumerate() {
            let mark = format!("{MARK}{number}");
            let Some(name) = bytes.strip_suffix(mark.as_bytes()) else { continue };
            if name.is_empty() || name.ends_with(b"=") || name == b"-p" {
                return OsString::from_vec([name, secret.as_bytes()].concat());
            }
        }
        word
    };
    shown.into_iter().map(back).collect()
}

/// Takes secrets out of sight: starts the program again where there are any. Returns the arguments as they were typed.
///
/// # Errors
/// The operating system's: nothing was started again.
pub fn hide(arguments: Vec<OsString>) -> io::Result<Vec<OsString>> {
    if let Some(descriptor) = std::env::var_os(DESCRIPTOR) {
        return take(&descriptor, arguments);
    }
    let (shown, secrets) = split(&arguments);
    let mut variables: Vec<(&str, OsString)> =
        VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))).collect();
    variables.extend(std::env::var_os(DATABASE.0).filter(|url| has_password(url)).map(|url| (DATABASE.0, url)));
    if secrets.is_empty() && variables.is_empty() {
        return Ok(arguments);
    }
    // Hex digits: what was typed need not be text.
    let digits = |secret: &OsString| hex::encode(secret.as_bytes());
    let named: BTreeMap<&str, String> = variables.iter().map(|(name, value)| (*name, digits(value))).collect();
    let hidden = serde_json::json!({"arguments": secrets.iter().map(digits).collect::<Vec<_>>(), "variables": named});
    let hidden = Zeroizing::new(hidden.to_string());
    // Without CLOEXEC: it is for the one that is started.
    let file = rustix::fs::memfd_create("hidden", rustix::fs::MemfdFlags::empty())?;
    let mut file = std::fs::File::from(file);
    file.write_all(hidden.as_bytes())?;
    file.rewind()?;
    let mut again = Command::new("/proc/self/exe");
    if let Some((name, rest)) = shown.split_first() {
        again.arg0(name).args(rest);
    }
    for (name, _) in &variables {
        again.env_remove(name);
    }
    Err(again.env(DESCRIPTOR, file.as_raw_fd().to_string()).exec())
}

/// The second start.
fn take(descriptor: &OsStr, shown: Vec<OsString>) -> io::Result<Vec<OsString>> {
    let wrong = || io::Error::other(format!("{DESCRIPTOR} is for the program's own use: unset it"));
    let number: u32 = descriptor.to_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
    let path = format!("/proc/self/fd/{number}");
    let is_ours =
        std::fs::read_link(&path).is_ok_and(|target| target.as_os_str().as_bytes().starts_with(b"/memfd:hidden"));
    if !is_ours {
        return Err(wrong());
    }
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let mut text = Zeroizing::new(String::new());
    (&mut file).take(LIMIT).read_to_string(&mut text)?;
    // Whoever is started from here inherits the descriptor: there is nothing in it any more.
    file.set_len(0)?;
    let hidden: serde_json::Value = serde_json::from_str(&text).map_err(|_| wrong())?;
    let value = |digits: &serde_json::Value| Some(OsString::from_vec(hex::decode(digits.as_str()?).ok()?));
    let secrets: Option<Vec<OsString>> = hidden["arguments"].as_array().and_then(|all| all.iter().map(value).collect());
    let variables: Option<BTreeMap<String, OsString>> = hidden["variables"]
        .as_object()
        .and_then(|all| all.iter().map(|(name, digits)| Some((name.clone(), value(digits)?))).collect());
    VARIABLES_TAKEN.set(variables.ok_or_else(wrong)?).map_err(|_| wrong())?;
    Ok(join(shown, &secrets.ok_or_else(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn secrets_are_taken_out_of_arguments_and_put_back() {
        for (line, wanted, secrets) in [
            ("f serve --api-key abc --port 1", "f serve --api-key hidden-0 --port 1", &["abc"][..]),
            ("f serve --api-key=a=b", "f serve --api-key=hidden-0", &["a=b"]),
            ("f login h -u x -p abc", "f login h -u x -p hidden-0", &["abc"]),
            ("f login h -pabc", "f login h -phidden-0", &["abc"]),
            ("f login h --password abc", "f login h --password hidden-0", &["abc"]),
            ("f --database postgres://u:p@h/d work", "f --database hidden-0 work", &["postgres://u:p@h/d"]),
            (
                "f --database=postgres://h/d?password=x work",
                "f --database=hidden-0 work",
                &["postgres://h/d?password=x"],
            ),
            ("f serve --api-key", "f serve --api-key", &[]),
            ("f --database postgres://u@h/d -p 5", "f --database postgres://u@h/d -p 5", &[]),
            ("f --database sqlite:/x/a:b@c work", "f --database sqlite:/x/a:b@c work", &[]),
        ] {
            let (shown, taken) = split(&words(line));
            assert_eq!(shown, words(wanted), "{line}");
            assert_eq!(taken, secrets.iter().map(OsString::from).collect::<Vec<_>>(), "{line}");
            assert_eq!(join(shown, &taken), words(line));
        }
    }
}
