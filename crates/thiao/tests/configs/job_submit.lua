-- site policy: needs a time limit, default account
function slurm_job_submit(job_desc, part_list, submit_uid)
    if job_desc.time_limit == slurm.NO_VAL then
        slurm.log_user("site: please give a --time")
        return slurm.ESLURM_INVALID_TIME_LIMIT
    end
    if job_desc.comment == nil then job_desc.comment = "site_was_here" end
    return slurm.SUCCESS
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
    return slurm.SUCCESS
end

slurm.log_info("initialized")
return slurm.SUCCESS
