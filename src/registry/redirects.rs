//! Where a redirect, an upload Location or a token realm may lead. Pure.
//!
//! Not the HTTP client's own policy: it knows nothing of upload Locations, and it cannot refuse a downgrade or tell a
//! registry in a private network from a public one that points there. The rules, for every URL a registry hands out:
//! only HTTP and HTTPS; never from HTTPS down to HTTP; never to this machine, to link-local addresses or to the metadata
//! services of clouds, unless the registry itself is there; never to an address of a private network, unless the registry is in
//! one, or on this machine. Credentials only stay on the same scheme, host and port;
//! whoever sends the request asks [`same_origin`] for that.
//!
//! What it does not do: resolve names. A public name that points at a link-local address is not noticed here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Most redirects followed for one request: registries use one or two, a loop uses all.
pub(super) const MAX_REDIRECTS: usize = 8;

/// Same scheme, host and port: the only place credentials may go.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// The URL that `location` names, seen from `from` (the URL that answered), if the registry at `registry` may send us there.
/// A user name or password within it is dropped; so is a fragment.
///
/// # Errors
/// Half a sentence why not, without the location's query.
pub(super) fn resolve(registry: &Url, from: &Url, location: &str) -> Result<Url, String> {
    let mut target = from.join(location).map_err(|error| format!("sent a location that is no URL ({error})"))?;
    if !matches!(target.scheme(), "http" | "https") {
        return Err(format!("sent a location with the scheme {:?}", target.scheme()));
    }
    // Neither can fail for a URL with a host, which HTTP and HTTPS URLs always have.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    target.set_fragment(None);
    check(registry, from, &target)?;
    Ok(target)
}

fn check(registry: &Url, from: &Url, target: &Url) -> Result<(), String> {
    let host = target.host_str().unwrap_or_default();
    if target.scheme() == "http" && (from.scheme() == "https" || registry.scheme() == "https") {
        return Err(format!("leads from HTTPS to plain HTTP on {host}, which is refused"));
    }
    match place(target) {
        Place::Elsewhere => Ok(()),
        near if near == place(registry) => Ok(()),
        Place::Private if place(registry) == Place::ThisMachine => Ok(()),
        Place::ThisMachine => Err(format!("leads to {host} on this machine, which is refused")),
        Place::Private => {
            Err(format!("leads to the private address {host}, which is refused: the registry is no private one"))
        }
        Place::LinkLocal => Err(format!("leads to the link-local or metadata address {host}, which is refused")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    ThisMachine,
    LinkLocal,
    /// In a network whose addresses mean something else in each place.
    Private,
    Elsewhere,
}

fn place(url: &Url) -> Place {
    match url.host() {
        Some(Host::Ipv4(address)) => place_of_address(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => place_of_address(without_translation(address)),
        Some(Host::Domain(name)) => place_of_name(name.trim_end_matches('.')),
        None => Place::Elsewhere,
    }
}

/// Endings of names in private networks.
const PRIVATE_SUFFIXES: [&str; 8] =
    [".local", ".internal", ".home.arpa", ".lan", ".intranet", ".corp", ".test", ".private"];

/// The IPv4 address within an IPv6 one that maps or translates it (RFC 4291, 2.5.5.2; RFC 6052).
fn without_translation(address: Ipv6Addr) -> IpAddr {
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))),
        _ => address.to_canonical(),
    }
}

fn place_of_name(name: &str) -> Place {
    match name {
        "localhost" => Place::ThisMachine,
        "metadata" | "metadata.google.internal" | "instance-data" | "instance-data.ec2.internal" => Place::LinkLocal,
        name if name.ends_with(".localhost") => Place::ThisMachine,
        // Names that no public name server knows: without a dot, or below what is set aside for networks of one's own
        // (RFC 6762, RFC 8375, ICANN's reservation of .internal, RFC 2606) or usual there.
        name if !name.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) => Place::Private,
        _ => Place::Elsewhere,
    }
}

fn place_of_address(address: IpAddr) -> Place {
    /// Metadata services that are not on link-local addresses: Alibaba Cloud; AWS over IPv6.
    const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    if address.is_loopback() || address.is_unspecified() {
        return Place::ThisMachine;
    }
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4 == METADATA_V4,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6 == METADATA_V6,
    };
    if link_local {
        return Place::LinkLocal;
    }
    let private = match address {
        // With RFC 6598, which providers use as if it were private.
        IpAddr::V4(v4) => v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64),
        IpAddr::V6(v6) => v6.is_unique_local(),
    };
    if private { Place::Private } else { Place::Elsewhere }
}

/// The upload Location with `digest=` added, everything that was there before it unchanged.
pub(super) fn with_digest(location: &Url, digest: &str) -> Url {
    let mut url = location.clone();
    let query = match location.query() {
        None | Some("") => format!("digest={digest}"),
        Some(query) => format!("{query}&digest={digest}"),
    };
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn from_public(location: &str) -> Result<String, String> {
        let registry = url("https://registry.example.com/v2/a/blobs/uploads/");
        resolve(&registry, &registry, location).map(String::from)
    }

    #[test]
    fn locations_are_joined_to_the_url_that_answered() {
        assert_eq!(from_public("/v2/a/x?_state=A%2Fb"), Ok("https://registry.example.com/v2/a/x?_state=A%2Fb".into()));
        assert_eq!(from_public("x?s=1"), Ok("https://registry.example.com/v2/a/blobs/uploads/x?s=1".into()));
        assert_eq!(from_public("?s=1"), Ok("https://registry.example.com/v2/a/blobs/uploads/?s=1".into()));
        assert_eq!(from_public("//cdn.example.com/x"), Ok("https://cdn.example.com/x".into()));
        assert_eq!(from_public("https://u:p@cdn.example.com/x#f"), Ok("https://cdn.example.com/x".into()));
        assert_eq!(from_public("https://8.8.8.8/x"), Ok("https://8.8.8.8/x".into()));
    }

    #[test]
    fn downgrades_and_other_schemes_are_refused() {
        assert!(from_public("http://registry.example.com/v2/a").unwrap_err().contains("plain HTTP"));
        assert!(from_public("file:///etc/passwd").is_err());
        assert!(from_public("https://").is_err());
        // Also on the second hop of a registry that was asked by HTTPS.
        let registry = url("https://registry.example.com/");
        assert!(resolve(&registry, &url("http://cdn.example.com/"), "/x").is_err());
    }

    #[test]
    fn this_machine_and_metadata_services_are_refused() {
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "[::1]",
            "[::]",
            "2130706433",
            "169.254.169.254",
            "0xa9fea9fe",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[::ffff:127.0.0.1]",
            "metadata.google.internal",
            "metadata.google.internal.",
            "100.100.100.200",
            "[fd00:ec2::254]",
        ] {
            let refused = from_public(&format!("https://{host}/x?secret=1")).unwrap_err();
            assert!(refused.contains("refused") && !refused.contains("secret"), "{host}: {refused}");
        }
    }

    #[test]
    fn private_addresses_are_for_private_registries() {
        let addresses =
            ["10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "[fd12::1]", "[::ffff:10.1.2.3]", "0x0a010203"];
        for address in addresses {
            let target = format!("https://{address}/x?secret=1");
            let refused = from_public(&target).unwrap_err();
            assert!(refused.contains("private") && !refused.contains("secret"), "{address}: {refused}");
            for registry in [
                "https://10.0.0.5",
                "https://registry",
                "https://harbor.internal.",
                "https://r.lan:5000",
                "https://127.0.0.1",
            ] {
                let registry = url(registry);
                assert!(resolve(&registry, &registry, &target).is_ok(), "{address} from {registry}");
            }
            let link_local = url("https://169.254.1.1");
            assert!(resolve(&link_local, &link_local, &target).is_err(), "{address}");
        }
        assert!(from_public("https://172.32.0.1/x").is_ok() && from_public("https://100.128.0.1/x").is_ok());
        // A private registry gets nobody to this machine.
        let private = url("https://10.0.0.5");
        assert!(resolve(&private, &private, "https://127.0.0.1/x").is_err());
        assert!(resolve(&private, &private, "https://169.254.169.254/x").is_err());
    }

    #[test]
    fn a_registry_may_point_to_where_it_is_itself() {
        let local = url("http://localhost:5000/v2/");
        assert!(resolve(&local, &local, "http://127.0.0.1:9000/x").is_ok());
        assert!(resolve(&local, &local, "http://169.254.169.254/x").is_err());
        let link_local = url("http://169.254.1.1:5000/v2/");
        assert!(resolve(&link_local, &link_local, "http://169.254.1.2/x").is_ok());
        assert!(resolve(&link_local, &link_local, "http://127.0.0.1/x").is_err());
    }

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        let one = url("https://r.example.com/a");
        assert!(same_origin(&one, &url("https://R.example.com:443/b?c")));
        assert!(!same_origin(&one, &url("http://r.example.com/a")));
        assert!(!same_origin(&one, &url("https://r.example.com:444/a")));
        assert!(!same_origin(&one, &url("https://s.r.example.com/a")));
    }

    #[test]
    fn the_digest_is_appended_and_the_rest_kept() {
        let add = |text: &str| with_digest(&url(text), "sha256:ab").to_string();
        assert_eq!(add("https://r/u"), "https://r/u?digest=sha256:ab");
        assert_eq!(add("https://r/u?"), "https://r/u?digest=sha256:ab");
        assert_eq!(add("https://r/u?_state=a%2F+b==&x"), "https://r/u?_state=a%2F+b==&x&digest=sha256:ab");
    }

    proptest! {
        #[test]
        fn the_query_stays_byte_for_byte(query in "[A-Za-z0-9%_.~=&+/?:@!$()*,;-]{1,60}") {
            let location = format!("/v2/a/blobs/uploads/1?{query}");
            let registry = url("https://r.example.com/v2/");
            let found = with_digest(&resolve(&registry, &registry, &location).unwrap(), "sha256:ab");
            let expected = format!("{query}&digest=sha256:ab");
            prop_assert_eq!(found.query(), Some(expected.as_str()));
        }

        #[test]
        fn never_panics(location in ".{0,80}") {
            let _ = from_public(&location);
        }
    }
}
