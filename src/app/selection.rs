//! Which services a command over several means: a pure function of their names, templates and tags.

use super::app::App;
use super::gateway::GATEWAY;
use crate::core::nearest::{did_you_mean, nearest};
use crate::core::services::ManagedService;

/// The services that a command line names. Empty: the command decides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names of services, or short forms of runtimes.
    pub names: Vec<String>,
    /// Only services with this tag.
    pub tag: Option<String>,
    /// Only services that are made from this template.
    pub template: Option<String>,
}

/// Why a command line selects no services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("there is no service {name}{}", did_you_mean(nearest.as_deref()))]
    NoService { name: String, nearest: Option<String> },
    #[error("there is no template {name}{}", did_you_mean(nearest.as_deref()))]
    NoTemplate { name: String, nearest: Option<String> },
}

/// What a selection looks at in one service.
#[derive(Debug, Clone, Copy)]
struct SelectionFacts<'a> {
    name: &'a str,
    /// The short form of its name.
    alias: Option<&'a str>,
    template: &'a str,
    tags: &'a [String],
}

impl Selection {
    /// Returns whether it selects by anything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the indices of the selected services: in the order of the names, each once; without names in the given
    /// order. `templates` are the names of all templates.
    fn of(
        &self,
        services: &[SelectionFacts<'_>],
        templates: &[String],
    ) -> Result<Vec<usize>, SelectionError> {
        if let Some(name) = self.template.as_ref().filter(|name| !templates.contains(name)) {
            let nearest = nearest(name, &mut templates.iter().map(String::as_str)).map(str::to_owned);
            return Err(SelectionError::NoTemplate { name: name.clone(), nearest });
        }
        let mut found = Vec::new();
        for name in &self.names {
            let is_meant = |service: &SelectionFacts<'_>| service.name == name || service.alias == Some(name);
            let Some(index) = services.iter().position(is_meant) else {
                let mut names = services.iter().map(|service| service.name).chain([GATEWAY]);
                let nearest = nearest(name, &mut names).map(str::to_owned);
                return Err(SelectionError::NoService { name: name.clone(), nearest });
            };
            if !found.contains(&index) {
                found.push(index);
            }
        }
        if self.names.is_empty() {
            found = (0..services.len()).collect();
        }
        let is_wanted = |service: &SelectionFacts<'_>| {
            self.tag.as_ref().is_none_or(|tag| service.tags.contains(tag))
                && self.template.as_ref().is_none_or(|template| service.template == template)
        };
        found.retain(|index| services.get(*index).is_some_and(is_wanted));
        Ok(found)
    }
}

impl App {
    /// Returns the services that `selection` names, in the order of the names; without names, of all services those
    /// that fit. The gateway is selected by its name alone.
    pub fn select(&self, selection: &Selection) -> Result<Vec<&ManagedService>, SelectionError> {
        let is_gateway_named = selection.names.iter().any(|name| name == GATEWAY);
        let gateway = is_gateway_named.then(|| self.gateway());
        let services: Vec<&ManagedService> = self.services().iter().chain(gateway).collect();
        let facts: Vec<SelectionFacts<'_>> = services.iter().copied().map(facts).collect();
        let found = selection.of(&facts, &self.template_names())?;
        Ok(found.into_iter().filter_map(|index| services.get(index).copied()).collect())
    }

    /// Like [`select`](Self::select), with the gateway last if nothing is selected and fusion has started it.
    pub fn select_with_gateway(&self, selection: &Selection) -> Result<Vec<&ManagedService>, SelectionError> {
        let mut services = self.select(selection)?;
        services.extend(self.recorded_gateway().filter(|_| selection.is_empty()));
        Ok(services)
    }

    /// Returns the names of all templates.
    fn template_names(&self) -> Vec<String> {
        let built_in = self.table.iter().map(|runtime| runtime.name().to_owned());
        built_in.chain(self.config.templates.iter().map(|template| template.name.to_string())).collect()
    }
}

fn facts(service: &ManagedService) -> SelectionFacts<'_> {
    let runtime = service.runtime().filter(|_| service.is_built_in());
    SelectionFacts {
        name: &service.name,
        alias: runtime.map(super::super::core::runtimes::Runtime::alias),
        template: service.template.name(),
        tags: &service.settings.instance.tags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names that a selection of four services gives, or its error.
    fn selected(names: &[&str], tag: Option<&str>, template: Option<&str>) -> String {
        let owned = |word: &str| word.to_owned();
        let tags = [vec![], vec![owned("image"), owned("dev")], vec![owned("code")], vec![owned("image")]];
        let [none, comfy, coder, pictures] = &tags;
        let services = [
            SelectionFacts { name: "mlx", alias: Some("mx"), template: "mlx", tags: none },
            SelectionFacts { name: "comfy", alias: None, template: "web", tags: comfy },
            SelectionFacts { name: "coder", alias: None, template: "mlx", tags: coder },
            SelectionFacts { name: "pictures", alias: None, template: "web", tags: pictures },
        ];
        let templates = ["mlx", "web", "unused"].map(owned);
        let selection = Selection {
            names: names.iter().map(|name| owned(name)).collect(),
            tag: tag.map(owned),
            template: template.map(owned),
        };
        match selection.of(&services, &templates) {
            Ok(found) => found
                .iter()
                .filter_map(|index| services.get(*index))
                .map(|one| one.name)
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn services_are_selected_by_name_tag_and_template() {
        for (names, tag, template, expected) in [
            (&[][..], None, None, "mlx comfy coder pictures"),
            (&["coder", "mlx"], None, None, "coder mlx"),
            (&["mx", "coder", "mlx"], None, None, "mlx coder"),
            (&[], Some("image"), None, "comfy pictures"),
            (&[], None, Some("mlx"), "mlx coder"),
            (&[], Some("code"), Some("mlx"), "coder"),
            (&[], Some("code"), Some("web"), ""),
            (&["pictures", "coder", "comfy"], Some("image"), None, "pictures comfy"),
            (&["coder"], Some("image"), None, ""),
            (&[], Some("imag"), None, ""),
            (&[], None, Some("unused"), ""),
            (&["codr"], None, None, "there is no service codr; did you mean coder?"),
            (&["mlx", "zzz"], None, None, "there is no service zzz"),
            (&[], None, Some("wep"), "there is no template wep; did you mean web?"),
            (&["zzz"], None, Some("zzz"), "there is no template zzz"),
        ] {
            assert_eq!(selected(names, tag, template), expected, "{names:?} {tag:?} {template:?}");
        }
    }
}
