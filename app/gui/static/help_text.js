// What the Help page says.

export const STEPS = [
  "Add an image: drop a file, or take one of the examples. Nothing leaves this machine.",
  "Say what is wrong with it. Paint what is missing; for blur and noise, “Suggest” makes a guess from the image.",
  "Press Restore. The picture appears while it is made; stop whenever you like, what there is so far is kept.",
];

export const READING = [
  [
    "Samples",
    "Many images could have made your measurement. Each sample is one of them, drawn at random: one seed, one sample, " +
      "and the same seed gives the same sample again. No sample is the truth.",
  ],
  ["Mean", "The average of the samples. It is the safest single picture, and smoother than any real one."],
  [
    "Spread",
    "How far the samples disagree at each place (their standard deviation). High: do not trust the detail there. Low " +
      "does not prove it right: all samples share one learned idea of what pictures look like.",
  ],
  [
    "Measured or imagined",
    "Where the measurement says nothing, what you see comes from the learned idea alone. The map shows that share; a " +
      "mask of missing pixels is imagined by definition.",
  ],
  [
    "Residual",
    "The result is measured again as you described it and compared with your data, in units of the noise (σ). About 1 " +
      "is right. Well above 1: the described blur, mask or noise is not the real one. Well below 1: the noise level is " +
      "set too high, or the result fits the noise too.",
  ],
];

export const LIMITS = [
  "It cannot know what was lost. What fills a hole is plausible, not true: faces, text, plates and lesions can be invented or erased.",
  "It works for the damage that you describe. A wrong blur or noise level gives a wrong picture, at times a convincing one.",
  "The network that comes with it has seen photographs. For CT, MRI and microscopy use methods without a network, or a network trained for them.",
  "Small spread and a residual near 1 together still do not make a result correct.",
  "It is no medical device and no forensic tool. Say so wherever you show a result.",
];

/** Programs that send a job to this server: pairs of title and text. */
export function snippets(address, token) {
  const header = token ? ' -H "Authorization: Bearer $PREIMAGE_TOKEN"' : "";
  const curl = [
    `curl${header} -F preset=denoise -F files=@photo.png ${address}/api/v1/jobs`,
    `curl${header} ${address}/api/v1/jobs/ID`,
    `curl${header} -o results.zip ${address}/api/v1/jobs/ID/archive`,
  ].join("\n");
  const asked = token
    ? [
        "import json, os, urllib.request",
        "",
        `asked = urllib.request.Request("${address}/api/v1/jobs")`,
        'asked.add_header("Authorization", "Bearer " + os.environ["PREIMAGE_TOKEN"])',
        "for job in json.load(urllib.request.urlopen(asked))[\"jobs\"]:",
      ]
    : [
        "import json, urllib.request",
        "",
        `for job in json.load(urllib.request.urlopen("${address}/api/v1/jobs"))["jobs"]:`,
      ];
  const python = [...asked, '    print(job["id"], job["title"], job["status"]["state"])'].join("\n");
  return [
    ["Send a picture (curl; ID is in the answer)", curl],
    ["List the runs (Python)", python],
  ];
}
