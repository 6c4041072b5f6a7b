process DEEPGPS_PREDICT {
    tag "$meta.id"
    label 'process_medium'

    conda "${moduleDir}/environment.yml"
    // Built from docs/deploy/Dockerfile, target base.
    container "deepgps:0.1.0"

    input:
    tuple val(meta), path(proteins), path(nucleus)

    output:
    tuple val(meta), path("${prefix}/results.tsv")       , emit: table
    tuple val(meta), path("${prefix}/results.jsonl")     , emit: records
    tuple val(meta), path("${prefix}/report.html")       , emit: report
    tuple val(meta), path("${prefix}/images/*.ome.tif")  , emit: images  , optional: true
    tuple val(meta), path("${prefix}/images/*.png")      , emit: pictures, optional: true
    tuple val(meta), path("${prefix}/rejected.csv")      , emit: rejected, optional: true
    path "versions.yml"                                  , emit: versions

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def draw = nucleus ? "--nucleus ${nucleus}" : ''
    prefix   = task.ext.prefix ?: "${meta.id}"
    """
    # 3: some records could not be used, and rejected.csv says why; the rest is predicted.
    deepgps predict \\
        ${proteins} \\
        ${draw} \\
        --offline \\
        --format tsv \\
        --threads ${task.cpus} \\
        --out ${prefix} \\
        ${args} \\
        || [ \$? -eq 3 ]

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepgps: \$(deepgps --version)
    END_VERSIONS
    """

    stub:
    prefix   = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}/results.tsv ${prefix}/results.jsonl ${prefix}/report.html

    cat <<-END_VERSIONS > versions.yml
    "${task.process}":
        deepgps: \$(deepgps --version)
    END_VERSIONS
    """
}
