//! What a token is asked for: resources and actions, in the order the registry should read them.
//!
//! Not a set of strings: some registries look at the first scope only, so order is kept (the repository that is pushed to
//! comes first), and a challenge may ask for more than was expected, so actions of the same resource are merged. Scopes
//! never hold anything secret; they are part of cache keys and log lines.

use std::fmt;

/// A list of scopes, without two entries for the same resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Scopes(Vec<Scope>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Scope {
    resource: String,
    actions: Vec<String>,
}

impl Scopes {
    /// Reading from a repository.
    pub fn pull(repository: &str) -> Self {
        Self::default().with(&format!("repository:{repository}"), &["pull"])
    }

    /// Writing to a repository. Registries want `pull` beside `push`, for their own existence checks.
    pub fn push(repository: &str) -> Self {
        Self::default().with(&format!("repository:{repository}"), &["pull", "push"])
    }

    /// Writing to a repository, and mounting a blob from another one of the same registry.
    pub fn mount(repository: &str, from: &str) -> Self {
        Self::push(repository).with(&format!("repository:{from}"), &["pull"])
    }

    /// Deleting from a repository.
    pub fn delete(repository: &str) -> Self {
        Self::default().with(&format!("repository:{repository}"), &["pull", "delete"])
    }

    /// Listing the repositories of a registry.
    pub fn catalog() -> Self {
        Self::default().with("registry:catalog", &["*"])
    }

    /// Reads the `scope` of a challenge: scopes separated by white space, the actions after the last colon.
    pub fn parse(text: &str) -> Self {
        text.split_whitespace().filter_map(|scope| scope.rsplit_once(':')).fold(
            Self::default(),
            |scopes, (resource, actions)| {
                let actions: Vec<&str> = actions.split(',').filter(|action| !action.is_empty()).collect();
                scopes.with(resource, &actions)
            },
        )
    }

    /// These scopes and what is missing of `other`, behind them.
    pub fn merged(self, other: &Self) -> Self {
        other.0.iter().fold(self, |scopes, scope| {
            let actions: Vec<&str> = scope.actions.iter().map(String::as_str).collect();
            scopes.with(&scope.resource, &actions)
        })
    }

    /// True when a token for these scopes serves `wanted` as well: the same resources, at least the same actions. A token
    /// for other resources on top is not taken, because some registries refuse it.
    pub fn serves(&self, wanted: &Self) -> bool {
        self.0.len() == wanted.0.len()
            && wanted.0.iter().all(|want| {
                self.0.iter().any(|have| {
                    have.resource == want.resource && want.actions.iter().all(|action| have.actions.contains(action))
                })
            })
    }

    /// Each scope as it stands in a token request.
    pub fn iter(&self) -> impl Iterator<Item = String> + '_ {
        self.0.iter().map(|scope| format!("{}:{}", scope.resource, scope.actions.join(",")))
    }

    fn with(mut self, resource: &str, actions: &[&str]) -> Self {
        let index = self.0.iter().position(|scope| scope.resource == resource).unwrap_or_else(|| {
            self.0.push(Scope { resource: resource.to_owned(), actions: Vec::new() });
            self.0.len() - 1
        });
        for action in actions {
            if !self.0[index].actions.iter().any(|have| have == action) {
                self.0[index].actions.push((*action).to_owned());
            }
        }
        self
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, scope) in self.iter().enumerate() {
            if index > 0 {
                formatter.write_str(" ")?;
            }
            formatter.write_str(&scope)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_that_is_pushed_to_comes_first() {
        assert_eq!(Scopes::mount("to", "from").to_string(), "repository:to:pull,push repository:from:pull");
        assert_eq!(Scopes::mount("same", "same").to_string(), "repository:same:pull,push");
    }

    #[test]
    fn a_challenge_is_read_and_merged() {
        let asked = Scopes::parse("repository:host:5000/a:pull,push  registry:catalog:*  nonsense");
        assert_eq!(asked.to_string(), "repository:host:5000/a:pull,push registry:catalog:*");
        let merged = Scopes::pull("a").merged(&Scopes::parse("repository:a:push,pull repository:b:pull"));
        assert_eq!(merged.to_string(), "repository:a:pull,push repository:b:pull");
    }

    #[test]
    fn a_wider_token_serves_the_same_resources_only() {
        assert!(Scopes::push("a").serves(&Scopes::pull("a")));
        assert!(!Scopes::pull("a").serves(&Scopes::push("a")));
        assert!(!Scopes::mount("a", "b").serves(&Scopes::pull("a")));
        assert!(!Scopes::push("b").serves(&Scopes::pull("a")));
    }
}
