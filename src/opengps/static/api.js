"use strict";
SwaggerUIBundle({
  url: document.getElementById("swagger").dataset.spec,
  dom_id: "#swagger",
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  deepLinking: true,
});
