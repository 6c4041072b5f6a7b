version 1.0

## Draws each record's protein into the cell of its images: one task for all records, on CPUs, without network.

struct CellRecord {
    String prediction_id
    File nucleus_image
    File? microtubules_image
    File? er_image
    File fasta_file
    String? cell_line
    Float? pixel_size_um
}

workflow deepgps_records {
    input {
        Array[CellRecord]+ records
        String docker
        Float? pixel_size_um
        Int seed = 0
        Boolean mean = false
    }

    call predict_records {
        input:
            records = records,
            docker = docker,
            pixel_size_um = pixel_size_um,
            seed = seed,
            mean = mean
    }

    output {
        Array[File] predictions = predict_records.predictions
        File prediction_results = predict_records.prediction_results
    }

    meta {
        description: "Protein images by deepGPS: one float32 TIFF for each record, and a table of results"
    }
}

task predict_records {
    input {
        Array[CellRecord]+ records
        String docker
        Float? pixel_size_um
        Int seed = 0
        Boolean mean = false
        Int cpu = 8
        Int memory_gb = 8
        Int disk_gb = 50
    }

    # Exit code 3: some records failed, and the table says why; the others were predicted.
    command <<<
        deepgps predict --records '~{write_json(records)}' --out predictions --offline \
            --seed ~{seed} ~{true="--mean" false="" mean} ~{"--pixel-size-um " + pixel_size_um} \
            || [ $? -eq 3 ]
    >>>

    output {
        Array[File] predictions = glob("predictions/*.tiff")
        File prediction_results = "predictions/prediction_results.tsv"
    }

    runtime {
        docker: docker
        cpu: cpu
        memory: "~{memory_gb} GB"
        disks: "local-disk ~{disk_gb} SSD"
    }

    parameter_meta {
        records: "What deepgps data records writes"
        docker: "The image of docs/deploy/Dockerfile, target base"
        pixel_size_um: "Pixel size in micrometres of images whose record gives none"
    }
}
