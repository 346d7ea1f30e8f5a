"""Any request that an OpenAPI document allows, and many that it does not, sent to the app that wrote it."""
