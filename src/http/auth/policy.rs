//! What an identity may see: an administrator everything, everybody else the instances of their own project.

use super::Identity;
use crate::inventory::Instance;

impl Identity {
    /// Whether it may know that this instance exists. One without an owner is the administrators' alone.
    #[must_use]
    pub fn may_see(&self, instance: &Instance) -> bool {
        self.admin || instance.project.as_ref().is_some_and(|owner| self.is_of(&owner.id))
    }

    /// Whether it may name this project in a path. The path's project is compared, never adopted: naming one gives
    /// nobody anything.
    #[must_use]
    pub fn may_name(&self, project: &str) -> bool {
        self.admin || self.is_of(project)
    }

    fn is_of(&self, project: &str) -> bool {
        self.project.as_deref() == Some(project)
    }
}

/// The roles that make a user an administrator.
#[derive(Clone, Debug)]
pub struct AdminRoles(Box<[String]>);

impl AdminRoles {
    /// These, in any letter case, as Keystone compares them.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self(names.into())
    }

    pub(super) fn include<'a>(&self, mut roles: impl Iterator<Item = &'a str>) -> bool {
        roles.any(|role| self.0.iter().any(|admin| admin.eq_ignore_ascii_case(role)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inventory::{
        Inventory,
        testing::{joined, nova, view},
    };

    fn member(project: Option<&str>) -> Identity {
        Identity { user: Some("u".into()), project: project.map(Arc::from), admin: false }
    }

    fn the_only(inventory: &Inventory) -> &Instance {
        &inventory.instances[0]
    }

    #[test]
    fn an_instance_is_seen_by_its_project_and_by_administrators() {
        let inventory = joined(&view(&[nova("", &[])], &[]));
        let instance = the_only(&inventory);
        assert!(Identity::admin().may_see(instance));
        assert!(member(Some("p1")).may_see(instance));
        for other in [Some("p2"), Some("P1"), Some("p1 "), Some("p"), None] {
            assert!(!member(other).may_see(instance), "{other:?}");
        }
    }

    #[test]
    fn an_instance_without_an_owner_is_the_administrators_alone() {
        for owner in ["", "<n:project uuid=''/>"] {
            let xml = nova("", &[]).replace("<n:project uuid='p1'>shop</n:project>", owner);
            let inventory = joined(&view(&[xml], &[]));
            let instance = the_only(&inventory);
            assert!(Identity::admin().may_see(instance));
            for other in [Some("p1"), None] {
                assert!(!member(other).may_see(instance), "{other:?}");
            }
        }
    }

    #[test]
    fn a_path_may_name_ones_own_project_and_administrators_may_name_any() {
        assert!(member(Some("p1")).may_name("p1"));
        assert!(Identity::admin().may_name("p1"));
        for (own, named) in [(Some("p1"), "p2"), (Some("p1"), ""), (None, "p1"), (None, "")] {
            assert!(!member(own).may_name(named), "{own:?} {named}");
        }
    }
}
