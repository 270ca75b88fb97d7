//! The vault: credentials that are sealed in the database.

use crate::support::binary::{Binary, Output};
use crate::support::image::{Image, ImageBuilder};
use crate::support::registry::Registry;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const PASSWORD: &str = "correct-horse-battery";

fn login(binary: &Binary, registry: &str, password: &str, more: &[&str]) -> Output {
    let arguments = [&["login", registry, "--username", "maria", "--password-stdin"], more].concat();
    binary.run_with_input(&arguments, format!("{password}\n").as_bytes())
}

fn small() -> Image {
    ImageBuilder::oci(7).layer(100).build()
}

fn key_file(binary: &Binary) -> PathBuf {
    binary.state().join("keys/vault.key")
}

/// No file of the home or the state folder, and no database file, holds the password.
fn assert_nowhere(binary: &Binary) {
    let mut folders = vec![binary.home(), binary.state()];
    if !binary.database().is_postgres() {
        folders.push(binary.database().file().parent().unwrap().to_owned());
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap_or_default();
            let found = bytes.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
            assert!(!found, "{} holds the password", path.display());
        }
    }
}

#[test]
fn a_stored_credential_opens_its_registry_and_is_nowhere_in_the_clear() {
    let Some(registry) = Registry::with_user("maria", PASSWORD) else { return };
    let binary = Binary::new();
    let host = registry.authority();
    let output = login(&binary, host, "wrong", &[]).expect_code(1);
    assert!(output.errors().contains("nothing was stored"), "{output}");
    assert_eq!(binary.run(&["credentials", "list", "-o", "json"]).success().text(), "[]\n");
    login(&binary, host, PASSWORD, &[]).success();
    let listed = binary.run(&["credentials", "list", "-o", "json"]).success().json();
    assert_eq!((&listed[0]["registry"], &listed[0]["username"]), (&host.into(), &"maria".into()));
    assert!(listed[0].get("sealed").is_none());
    assert_eq!(std::fs::metadata(key_file(&binary)).unwrap().permissions().mode() & 0o777, 0o600);
    small().push(&registry.client().basic("maria", PASSWORD), "a", "1");
    let replicated = binary.run(&[
        "replicate",
        &registry.reference("a", "1"),
        &registry.reference("b", "1"),
        "--log-level",
        "debug",
    ]);
    let replicated = replicated.success();
    assert!(!replicated.errors().contains(PASSWORD), "{replicated}");
    assert_nowhere(&binary);
    binary.run(&["logout", host]).success();
    binary.run(&["logout", host]).expect_code(1);
    binary.run(&["inspect", &registry.reference("a", "1")]).expect_code(1);
}

#[test]
fn keys_are_rotated_while_the_old_ones_are_needed() {
    let binary = Binary::new();
    for number in 0..5 {
        login(&binary, &format!("r{number}.example"), PASSWORD, &["--no-verify"]).success();
    }
    let key = |at: usize| {
        let listed = binary.run(&["credentials", "list", "-o", "json"]).success().json();
        listed[at]["key_id"].as_str().unwrap().to_owned()
    };
    let before = key(0);
    let rotated = binary.run(&["credentials", "rotate-key", "-o", "json"]).success().json();
    assert_eq!(rotated["resealed"], 5);
    assert_ne!(key(0), before);
    assert!((0..5).all(|at| key(at) == rotated["key_id"].as_str().unwrap()));
    assert_eq!(std::fs::read_to_string(key_file(&binary)).unwrap().lines().count(), 1, "the old key is gone");
    // One that was sealed for another registry does not open: the rotation stops there, and no key is lost.
    if !binary.database().is_postgres() {
        let swap = "UPDATE credentials SET sealed = (SELECT sealed FROM credentials WHERE registry = 'r0.example') \
            WHERE registry = 'r3.example'";
        if binary.sql(swap).is_none() {
            return;
        }
        let output = binary.run(&["credentials", "rotate-key"]).expect_code(1);
        assert!(output.errors().contains("r3.example") && output.errors().contains("stays shut"), "{output}");
        assert_eq!(std::fs::read_to_string(key_file(&binary)).unwrap().lines().count(), 2);
        login(&binary, "r3.example", PASSWORD, &["--no-verify"]).success();
        binary.run(&["credentials", "rotate-key"]).success();
        assert_eq!(std::fs::read_to_string(key_file(&binary)).unwrap().lines().count(), 1);
    }
    assert_nowhere(&binary);
}

#[test]
fn without_its_key_the_vault_stays_shut_and_the_rest_works() {
    let Some(registry) = Registry::with_user("maria", PASSWORD) else { return };
    let binary = Binary::new();
    let host = registry.authority();
    login(&binary, host, PASSWORD, &[]).success();
    small().push(&registry.client().basic("maria", PASSWORD), "a", "1");
    let inspect = || binary.run(&["inspect", &registry.reference("a", "1")]);
    inspect().success();
    let file = key_file(&binary);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = inspect().expect_code(1);
    assert!(output.errors().contains("chmod 600"), "{output}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}\n", "0".repeat(64))).unwrap();
    let output = inspect().expect_code(1);
    assert!(output.errors().contains("stays shut") && output.errors().contains(host), "{output}");
    // Credential files go on working, and so does the rest.
    binary.docker_login(host, "maria", PASSWORD);
    inspect().success();
    binary.run(&["jobs", "list"]).success();
    std::fs::remove_file(binary.home().join(".docker/config.json")).unwrap();
    // The key from elsewhere: any key service.
    let elsewhere = binary.home().join("elsewhere");
    std::fs::write(&elsewhere, key).unwrap();
    let binary = binary.env("FREIGHTLINER_VAULT_KEY_COMMAND", format!("cat {}", elsewhere.display()));
    binary.run(&["inspect", &registry.reference("a", "1")]).success();
    let binary = binary.env("FREIGHTLINER_VAULT_KEY_COMMAND", "false");
    let output = binary.run(&["inspect", &registry.reference("a", "1")]).expect_code(1);
    assert!(output.errors().contains("the key command"), "{output}");
}

#[test]
fn what_cannot_be_stored_is_refused() {
    let binary = Binary::new();
    for (registry, code) in [("x", 2), ("h.example/a", 2), ("h.example:99999999", 2), ("", 2)] {
        login(&binary, registry, PASSWORD, &["--no-verify"]).expect_code(code);
    }
    login(&binary, "h.example", "", &["--no-verify"]).expect_code(2);
    binary.run(&["login", "h.example", "-u", "maria", "-p", ""]).expect_code(2);
    let output = binary.run(&["login", "h.example", "-u", "maria"]).expect_code(2);
    assert!(output.errors().contains("no terminal"), "{output}");
    let output = login(&binary, "127.0.0.1:9", PASSWORD, &[]).expect_code(1);
    assert!(output.errors().contains("nothing was stored"), "{output}");
    assert_eq!(binary.run(&["credentials", "list", "-o", "json"]).success().text(), "[]\n");
}

#[test]
fn a_password_that_is_typed_or_in_a_variable_is_taken() {
    let Some(registry) = Registry::with_user("maria", PASSWORD) else { return };
    let binary = Binary::new();
    let host = registry.authority();
    binary.run(&["login", host, "-u", "maria", "-p", PASSWORD]).success();
    binary.run(&["logout", host]).success();
    binary.run(&["login", host, "-u", "maria", &format!("--password={PASSWORD}")]).success();
    binary.run(&["logout", host]).success();
    let binary = binary.env("REGISTRY_USERNAME", "maria").env("REGISTRY_PASSWORD", PASSWORD);
    let output = binary.run(&["login", host, "--log-level", "trace"]).success();
    assert!(!output.errors().contains(PASSWORD), "{output}");
    assert_nowhere(&binary);
}

#[test]
fn rotations_and_logins_at_once_lose_nothing() {
    let binary = Binary::new();
    for number in 0..4 {
        login(&binary, &format!("r{number}.example"), PASSWORD, &["--no-verify"]).success();
    }
    for round in 0..3 {
        let rotating: Vec<_> = (0..4).map(|_| binary.spawn(&["credentials", "rotate-key"])).collect();
        let hosts = [format!("n{round}.example"), format!("m{round}.example")];
        let logins: Vec<_> = hosts
            .iter()
            .map(|host| {
                let words = ["login", host.as_str(), "-u", "maria", "--password-stdin", "--no-verify"];
                binary.spawn_with_input(&words, PASSWORD.as_bytes())
            })
            .collect();
        for running in rotating.into_iter().chain(logins) {
            running.finish().success();
        }
        // Each one is opened by this.
        let rotated = binary.run(&["credentials", "rotate-key", "-o", "json"]).success().json();
        assert_eq!(rotated["resealed"], 4 + 2 * (round + 1));
        assert_eq!(std::fs::read_to_string(key_file(&binary)).unwrap().lines().count(), 1);
    }
    // Cut short: it goes on with the key that it had.
    let mut running = binary.spawn(&["credentials", "rotate-key"]);
    crate::support::within(std::time::Duration::from_secs(5), || {
        (std::fs::read_to_string(key_file(&binary)).unwrap().lines().count() > 1 || !running.is_running()).then_some(())
    });
    drop(running);
    binary.run(&["credentials", "rotate-key"]).success();
    binary.run(&["credentials", "rotate-key"]).success();
    assert_eq!(std::fs::read_to_string(key_file(&binary)).unwrap().lines().count(), 1);
}
