// The REST interface as a page, drawn from its own description.

import { failure, get, make, replace } from "./dom.js";

const place = document.getElementById("routes");
try {
  const { paths, components } = await get("openapi.json");
  const named = (schema) => (schema?.$ref ? components.schemas[schema.$ref.split("/").pop()] : schema);
  replace(place, ...Object.entries(paths).flatMap(([path, all]) => Object.entries(all).map(([verb, one]) => {
    const body = named(one.requestBody?.content?.["application/json"]?.schema);
    return make("section", {},
      make("h2", { text: `${verb.toUpperCase()} ${path}` }),
      make("p", { text: one.description || one.summary || "" }),
      make("ul", {}, ...(one.parameters || []).map((each) => make("li", {}, make("code", { text: each.name }), ` ${each.in}${each.required ? ", needed" : ""}`))),
      body && make("pre", { text: JSON.stringify(body.properties, null, 1) }));
  })));
} catch (error) {
  replace(place, failure(error));
}
