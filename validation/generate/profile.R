# Profile likelihood intervals of lme4 fits by maximum likelihood (lme4 profiles the ML deviance).
# MLMED_DATA=FOLDER_WITH_THE_DATA Rscript validation/generate/profile.R [OUT_DIR]
# (default validation/reference/profile: the folder above it holds fits only)
suppressMessages({
  library(lme4)
  library(jsonlite)
})

MODELS <- list(
  list(name = "sleepstudy", data = "sleepstudy", formula = "Reaction ~ Days + (1 + Days | Subject)"),
  list(name = "ml_sim_m_x", data = "ml_sim", formula = "m ~ x + (1 + x | id)"),
  list(name = "ml_sim_y_mx", data = "ml_sim", formula = "y ~ m + x + (1 + m | id)")
)
SETTINGS <- 'lmerControl("bobyqa", optCtrl = list(rhobeg = 0.02, rhoend = 1e-10, maxfun = 1e6), calc.derivs = FALSE)'
# A finer grid and a closer match than the defaults: ends are splines through the grid.
PROFILE <- "profile(fit, signames = FALSE, delta = 0.15, devtol = 1e-6)"
LEVEL <- 0.95

folder <- Sys.getenv("MLMED_DATA")
out <- commandArgs(trailingOnly = TRUE)
out <- if (length(out)) out[1] else "validation/reference/profile"
for (model in MODELS) {
  data <- read.csv(file.path(folder, paste0(model$data, ".csv")))
  fit <- lmer(as.formula(model$formula), data, REML = FALSE, control = eval(parse(text = SETTINGS)))
  ends <- confint(eval(parse(text = PROFILE)), level = LEVEL)
  result <- list(
    software = paste0("R ", getRversion(), ", lme4 ", packageVersion("lme4")),
    call = paste("lmer REML = FALSE,", SETTINGS, ";", PROFILE), data = model$data, formula = model$formula,
    level = LEVEL, logLik = as.numeric(logLik(fit)), low = as.list(ends[, 1]), high = as.list(ends[, 2])
  )
  write_json(result, file.path(out, paste0(model$name, ".json")), digits = NA, auto_unbox = TRUE, pretty = TRUE)
}
