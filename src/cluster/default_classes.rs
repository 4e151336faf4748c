//! Default classes: AcceleratorClasses that the operator creates if they do not exist. It never overwrites an edit.

use crate::crd::{AcceleratorClass, AcceleratorClassSpec, FIELD_MANAGER};
use anyhow::{Context as _, bail};
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, PostParams},
};
use std::{collections::HashSet, path::Path};

/// Reads the file's YAML list; without a file, the class `cpu`.
///
/// # Errors
/// When the file cannot be read, is not a list of AcceleratorClasses, or names one twice.
pub fn read(file: Option<&Path>) -> anyhow::Result<Vec<AcceleratorClass>> {
    let Some(file) = file else {
        return Ok(vec![AcceleratorClass::new(
            "cpu",
            AcceleratorClassSpec::default(),
        )]);
    };
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the AcceleratorClasses in {shown}"))?;
    let classes: Vec<AcceleratorClass> = serde_saphyr::from_str(&text)
        .with_context(|| format!("{shown} is not a YAML list of AcceleratorClasses"))?;
    let mut names = HashSet::new();
    if let Some(twice) = classes.iter().find(|class| !names.insert(class.name_any())) {
        bail!("{shown} names AcceleratorClass {:?} twice", twice.name_any());
    }
    Ok(classes)
}

/// Whether this operator may read AcceleratorClasses. If it only has rights in namespaces, it may not.
///
/// # Errors
/// When the API server cannot be reached.
pub async fn may_read(client: &Client) -> kube::Result<bool> {
    let api: Api<AcceleratorClass> = Api::all(client.clone());
    match api.list_metadata(&ListParams::default().limit(1)).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(false),
        Err(error) => Err(error),
    }
}

/// Creates the classes that do not exist. Returns those that the operator has no right to create.
///
/// # Errors
/// When the API server rejects a class for another reason.
pub async fn create_missing(
    client: &Client,
    classes: &[AcceleratorClass],
) -> anyhow::Result<Vec<AcceleratorClass>> {
    let mut forbidden = Vec::new();
    let api: Api<AcceleratorClass> = Api::all(client.clone());
    let existing = api.list_metadata(&ListParams::default()).await?;
    let existing: HashSet<String> = existing.items.iter().map(|class| class.name_any()).collect();
    for class in classes
        .iter()
        .filter(|class| !existing.contains(&class.name_any()))
    {
        let parameters = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match api.create(&parameters, class).await {
            Ok(_) => tracing::info!(class = class.name_any(), "created the AcceleratorClass"),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if status.code == 403 => {
                tracing::warn!(
                    class = class.name_any(),
                    message = status.message,
                    "not allowed to create the AcceleratorClass; using the one from the file until it is \
                     applied"
                );
                forbidden.push(class.clone());
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("creating AcceleratorClass {:?}", class.name_any()));
            }
        }
    }
    Ok(forbidden)
}
